"""`histoqueue submit` against real servers: whatever is killed, each file gets one job and one row."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from ops.processes import wait_until
from shared.job_store_redis import connect
from tests.chaos.system import System, running_system
from tests.factories import png_bytes
from tests.stack import ROOT

pytestmark = pytest.mark.integration

FILES = 300
KILLS = 20


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Real servers and one worker whose engine has no model and takes 10 ms a tile."""
    with running_system(tmp_path_factory.mktemp("system"), 1, 10.0) as running:
        yield running


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A folder with folders; every third file is a copy of another, and is a tile of its own all the same."""
    for number in range(FILES):
        folder = tmp_path / "tiles" / f"slide {number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04}.png").write_bytes(png_bytes(32, 32, seed=number - number % 3))
    return tmp_path / "tiles"


@contextmanager
def submitting(system: System, tiles: Path, out: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command; it is killed at the end of the block if it still runs."""
    command = [sys.executable, "-m", "histoqueue", "submit", str(tiles), "--out", str(out), *more]
    process = subprocess.Popen(
        command,
        env={**os.environ, "HISTOQUEUE_URL": system.url, "PYTHONPATH": str(ROOT / "client")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def accepted(system: System) -> int:
    """Count the jobs of the ledger."""
    client = connect(system.redis_url, timeout_seconds=5)
    try:
        return sum(1 for _ in client.scan_iter("job:*", count=1000))
    finally:
        client.close()


def finish(system: System, tiles: Path, out: Path, *more: str) -> str:
    """Let the command come to its end; return what it said on standard error."""
    with submitting(system, tiles, out, *more) as process:
        said, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints + system.nursery.story()
    assert said == ""
    return complaints


def assert_each_file_has_its_row(tiles: Path, out: Path, jobs: int) -> None:
    """Rows are files, jobs are files: none is missing, none is there twice."""
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(str(path) for path in tiles.rglob("*.png"))
    assert {row["status"] for row in rows} == {"succeeded"}
    assert len({row["job_id"] for row in rows}) == len(rows) == jobs


def test_killed_at_twenty_points_it_goes_on_where_it_was(system: System, tiles: Path, tmp_path: Path) -> None:
    """SIGKILL, and Ctrl-C now and then, at random points between the first job and the last."""
    chance = random.Random(os.environ.get("CHAOS_SEED", "8"))
    out, before = tmp_path / "results.csv", accepted(system)
    for kill, planned in enumerate(sorted(chance.sample(range(1, FILES - KILLS), KILLS))):
        number = signal.SIGINT if kill % 5 == 4 else signal.SIGKILL
        # At least one job of its own: what was on its way at the last kill is there already.
        at = max(before + planned, accepted(system) + 1)
        with submitting(system, tiles, out, "--concurrency", "8") as process:
            assert wait_until(lambda at=at: accepted(system) >= at, 60, every_seconds=0.01)
            time.sleep(chance.random() * 0.05)
            process.send_signal(number)
            assert process.wait(30) in (-signal.SIGKILL, 130), process.stderr and process.stderr.read()
        assert not out.exists(), "a file of results is whole or not there"
    finish(system, tiles, out, "--concurrency", "8")
    assert_each_file_has_its_row(tiles, out, accepted(system) - before)


def test_it_outlasts_a_restart_of_every_server(system: System, tiles: Path, tmp_path: Path) -> None:
    """The API, Redis, the object store and the worker are killed under it, one after the other."""
    out, before = tmp_path / "results.csv", accepted(system)
    with submitting(system, tiles, out, "--concurrency", "8") as process:
        for number, name in enumerate(["api", "redis", "store", "worker-0"], start=1):
            at = number * FILES // 6
            assert wait_until(lambda at=at: seen(system) - before >= at, 60, every_seconds=0.02)
            system.nursery.signal(name, signal.SIGKILL)
        said, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints + system.nursery.story()
    assert said == ""
    assert_each_file_has_its_row(tiles, out, accepted(system) - before)


def seen(system: System) -> int:
    """Count the jobs, or none while the ledger is away."""
    try:
        return accepted(system)
    except redis.RedisError:
        return 0


def test_a_second_call_has_nothing_to_do(system: System, tiles: Path, tmp_path: Path) -> None:
    """Every row comes from the journal; a file that is added is the only one to be submitted."""
    out = tmp_path / "results.csv"
    finish(system, tiles, out)
    whole, before = out.read_text(), accepted(system)
    out.unlink()
    assert f"{FILES} of {FILES} files" in finish(system, tiles, out)
    assert out.read_text() == whole
    assert accepted(system) == before
    (tiles / "new.png").write_bytes(png_bytes(32, 32, seed=999))
    finish(system, tiles, out)
    assert accepted(system) == before + 1


def test_nobody_at_the_server_is_status_3(tiles: Path, tmp_path: Path, system: System) -> None:
    """After its patience, with nothing written and a word on how to go on."""
    out = tmp_path / "results.csv"
    nowhere = ["--server", "http://127.0.0.1:9", "--patience", "0.5"]
    with submitting(system, tiles, out, *nowhere) as process:
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 3, complaints
    assert "the same command goes on" in complaints
    assert not out.exists()
    finish(system, tiles, out)
