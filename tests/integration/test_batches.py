"""A batch through the real API, ledger, queue and workers: races, a wiped Redis, an archive that streams."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from ops.processes import wait_until
from tests.chaos.system import System, running_system
from tests.chaos.tiles import small_tile
from tests.factories import zip_bytes
from tests.fake_engine import CRASH

pytestmark = pytest.mark.integration

MANY = 2000


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two workers without a model, which take a moment over each tile."""
    folder = tmp_path_factory.mktemp("batches")
    settings = {"MAX_OPEN_JOBS": "5000"}
    with running_system(folder, workers=2, milliseconds_a_tile=2, settings=settings) as running:
        yield running


@pytest.fixture
def client(system: System) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=system.url, timeout=120, trust_env=False) as made:
        yield made


def archive(count: int, first: int = 0, marker: bytes = b"") -> bytes:
    """Return a zip of so many tiles, no two alike."""
    tiles = {f"x{number}_y0.png": small_tile(number, marker).body for number in range(first, first + count)}
    return zip_bytes(tiles, zipfile.ZIP_STORED)


def send(client: httpx2.Client, body: bytes, key: str | None = None) -> dict[str, Any]:
    """Submit an archive that must be accepted; return the answer."""
    headers = {"Content-Type": "application/zip"} | ({"Idempotency-Key": key} if key else {})
    answer = client.post("/batches", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    batch: dict[str, Any] = answer.json()
    return batch


def completed(client: httpx2.Client, batch: dict[str, Any]) -> dict[str, Any]:
    """Wait until every job of a batch has ended; return the batch."""
    shown: dict[str, Any] = {}

    def is_completed() -> bool:
        answer = client.get(batch["links"]["self"])
        shown.update(answer.json() if answer.status_code == 200 else {})
        return shown.get("status") == "completed"

    assert wait_until(is_completed, 120, 0.2), shown
    return shown


def rows(client: httpx2.Client, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every row of the results, page by page."""
    found: list[dict[str, Any]] = []
    address: str | None = f"{batch['links']['results']}?limit=500"
    while address:
        page = client.get(address)
        assert page.status_code == 200
        found += [json.loads(line) for line in page.text.splitlines()]
        address = page.links.get("next", {}).get("url")
    return found


def test_an_archive_of_two_thousand_tiles_takes_no_memory(client: httpx2.Client, system: System) -> None:
    """Every tile has its row, by its name; the server grows by far less than it was sent."""
    send(client, archive(50, first=900_000))  # what is imported and pooled once
    (api,) = [process for process in psutil.process_iter(["cmdline"]) if _is_api(process, system)]
    (process,) = api.children() or [api]
    before = process.memory_info().rss
    peak, is_over = [before], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    # The padding is what a larger tile would have; a decoder stops before it.
    body = _padded_archive(MANY, 20_000)
    batch = send(client, body)
    is_over.set()
    watcher.join()
    assert (batch["accepted"], batch["problems"]) == (MANY, [])
    assert peak[0] - before < len(body) / 2, (peak[0] - before, len(body))
    assert completed(client, batch)["counts"]["succeeded"] == MANY
    names = [row["custom_id"] for row in rows(client, batch)]
    assert len(names) == MANY
    assert set(names) == {f"x{number}_y0.png" for number in range(MANY)}


def _padded_archive(count: int, padding: int) -> bytes:
    tiles = {f"x{number}_y0.png": small_tile(number).body + b"\0" * padding for number in range(count)}
    return zip_bytes(tiles, zipfile.ZIP_STORED)


def _is_api(process: psutil.Process, system: System) -> bool:
    line = " ".join(process.info["cmdline"] or ())
    return "gunicorn" in line and system.url.removeprefix("http://") in line and process.children() != []


def test_a_batch_that_is_canceled_while_it_runs_ends(client: httpx2.Client) -> None:
    """Each job has one outcome, each is counted once, and what was canceled stays so."""
    batch = send(client, archive(400, first=10_000))
    assert wait_until(lambda: client.get(batch["links"]["self"]).json()["counts"]["succeeded"] > 5, 60)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post(batch["links"]["cancel"]), range(4)))
    assert {answer.status_code for answer in answers} == {202}
    shown = completed(client, batch)
    assert shown["counts"]["canceled"] == sum(answer.json()["canceled"] for answer in answers)
    assert shown["counts"]["succeeded"] + shown["counts"]["canceled"] == 400
    found = {row["custom_id"]: row["status"] for row in rows(client, batch)}
    assert len(found) == 400
    assert client.get(batch["links"]["self"]).json()["counts"] == shown["counts"]


def test_the_same_request_from_many_at_once_is_one_batch(client: httpx2.Client) -> None:
    """With one key: no job twice, whoever came first."""
    body = archive(60, first=20_000)
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: send(client, body, "one-key"), range(8)))
    assert len({batch["id"] for batch in batches}) == 1
    assert {batch["accepted"] for batch in batches} == {60}
    assert completed(client, batches[0])["total"] == 60
    assert len(rows(client, batches[0])) == 60


def test_what_failed_is_run_once_more(client: httpx2.Client) -> None:
    """And only that: the others keep their results."""
    good, bad = archive(3, first=30_000), small_tile(30_100, CRASH).body
    packed = io.BytesIO(good)
    with zipfile.ZipFile(packed, "a") as made:
        made.writestr("bad.png", bad)
    batch = send(client, packed.getvalue())
    shown = completed(client, batch)
    assert shown["reasons"] == {"POISON": 1}
    retried = client.post(shown["links"]["retry"])
    assert (retried.status_code, retried.json()["retried"]) == (202, 1)
    assert completed(client, batch)["counts"] == shown["counts"]
    assert len(rows(client, batch)) == 4


def test_a_wiped_redis_loses_no_batch(tmp_path: Path) -> None:
    """Members, order of ends, counts, and the key: what had ended is told, what waits is run."""
    with (
        running_system(tmp_path, workers=1, milliseconds_a_tile=20) as system,
        httpx2.Client(base_url=system.url, timeout=120, trust_env=False) as client,
    ):
        body = archive(150, first=40_000)
        batch = send(client, body, "kept")
        assert wait_until(lambda: client.get(batch["links"]["self"]).json()["counts"]["succeeded"] > 20, 60)
        time.sleep(2)  # what ended by now is in the object store
        before = {row["custom_id"] for row in rows_so_far(client, batch)}
        system.redis.flushall()
        assert client.get(batch["links"]["self"]).status_code in (200, 503)
        assert completed(client, batch)["counts"]["succeeded"] == 150
        after = rows(client, batch)
        assert len(after) == 150
        assert before <= {row["custom_id"] for row in after}
        assert {row["batch"] for row in after} == {batch["id"]}
        again = send(client, body, "kept")
        assert (again["id"], again["accepted"]) == (batch["id"], 150)


def rows_so_far(client: httpx2.Client, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the first page of results, which may be all there is now."""
    return [json.loads(line) for line in client.get(batch["links"]["results"]).text.splitlines()]
