import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.broker import Broker
from benchmarks.scale import main
from shared import keys


def lines_of(arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Run the command, and return its last line of each kind."""
    main(arguments.split())
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["what"]: line for line in lines}


@pytest.mark.parametrize("more", ["", " --thin"], ids=["shipped", "thin"])
def test_workers_are_counted_and_what_they_cost(
    more: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By process; shipped workers and thin ones alike, wherever this process would find its models."""
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9")
    lines = lines_of(f"workers --counts 2 --seconds 1{more}", capsys)
    found = lines["workers"]
    assert found["workers"] == 2
    assert found["jobs_a_second"] > 0
    assert {"redis", "worker", "others"} <= set(found["cores"])
    assert found["redis_ms_a_job"]["cpu_ms"] > 0
    assert lines["one Redis carries"]["jobs_a_second"] > 0


def test_submissions_are_measured_at_two_lengths_of_the_queue(capsys: pytest.CaptureFixture[str]) -> None:
    """And what was queued is in the ledger and in the queue, each job with its record and its message."""
    lines = lines_of("queued --few 100 --many 1000 --jobs 50 --rounds 2", capsys)
    assert lines["filled"]["queued"] == 1000
    assert 600 < lines["filled"]["redis_bytes_a_job"] < 4000
    assert lines["submission"]["round"] == 2
    assert lines["looks"]["queued"] == 1000
    assert {"rate_median", "rate_best", "redis_cpu_median", "redis_cpu_best"} < set(lines["quotients"])


def test_a_queue_is_filled_with_what_submissions_would_have_put_there(tmp_path: Path) -> None:
    """Records and messages differ in ids, times and places alone."""
    with Broker(tmp_path) as broker:
        broker.fill(1)
        (submitted,) = broker.submit(1)
        messages = [json.loads(str(text)) for text in broker.redis.lrange(keys.INFERENCE_QUEUE, 0, -1)]
        names = list(broker.redis.scan_iter(match=f"{keys.JOB}*-*"))
        records = [broker.redis.hgetall(name) for name in names]
    assert messages[0]["headers"]["id"] == submitted.id
    assert {message["headers"].pop("id") for message in messages} == {
        str(name).removeprefix(keys.JOB) for name in names
    }
    for message in messages:
        del message["headers"]["published_at_ms"], message["headers"]["standing"]
        del message["properties"]["delivery_tag"]
    assert messages[0] == messages[1]
    assert set(records[0]) == set(records[1])
