"""A process that dies at the worst moment, one moment after the other, loses nothing and doubles nothing."""

import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.prepare import newest_bundled_model
from ops.processes import wait_until
from shared import keys
from shared.crash_points import CRASH_POINTS
from shared.errors import EngineCrashed
from shared.schemas import ModelRef
from tests.chaos.client import Client
from tests.chaos.crashing import CRASH_AT
from tests.chaos.history import History
from tests.chaos.load import in_parallel
from tests.chaos.plan import WORKERS
from tests.chaos.system import System, running_system
from tests.chaos.tiles import Tile, small_tile
from tests.fake_engine import CRASH
from tests.stack import png
from worker.supervisor import EngineOptions, EngineSupervisor

ROOT = Path(__file__).resolve().parents[2]
JOBS = 12
CLIENTS = 4
#: From the crash to the last outcome, on a busy machine.
END_SECONDS = 60.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all points: each takes a process, and the nursery brings it back."""
    settings = {"IMAGE_RETENTION_SECONDS": "1", "LEASE_SECONDS": "2"}
    with running_system(tmp_path_factory.mktemp("points"), WORKERS, 4, settings=settings) as running:
        yield running


def tiles_for(point: str) -> list[Tile]:
    """Return tiles like no others; the one point that needs poison gets some."""
    start = 100_000 + 1000 * list(CRASH_POINTS).index(point)
    markers = [CRASH if point == "worker.struck" and number == 0 else b"" for number in range(JOBS)]
    return [small_tile(start + number, marker) for number, marker in enumerate(markers)]


def patient_client(system: System, history: History) -> Client:
    until = time.monotonic() + END_SECONDS
    return Client(system, history, lambda: time.monotonic() > until)


def submit_all(system: System, history: History, tiles: list[Tile]) -> None:
    """Submit them from several clients, each until it is accepted, each twice with its key."""
    lock, waiting = threading.Lock(), iter(tiles)

    def submit() -> None:
        with patient_client(system, history) as client:
            while True:
                with lock:
                    tile = next(waiting, None)
                if tile is None:
                    return
                assert client.submit(tile, repeat=True), system.nursery.story()

    in_parallel([submit] * CLIENTS)


def lose_the_messages(system: System, history: History, tiles: list[Tile]) -> None:
    """Leave accepted jobs without messages: what a reaper is for."""
    for name in system.workers:
        system.nursery.signal(name, signal.SIGSTOP)
    submit_all(system, history, tiles)
    system.redis.delete(keys.INFERENCE_QUEUE, keys.BULK_QUEUE)
    for name in system.workers:
        system.nursery.signal(name, signal.SIGCONT)


@pytest.mark.integration
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_crash_there_costs_no_job_and_makes_none_twice(system: System, point: str) -> None:
    """Each key has one job, each job one outcome, and that is its image's."""
    history, tiles, before = History(), tiles_for(point), system.known_jobs()
    system.crash_file.write_text(point)
    if point.startswith("reaper."):
        lose_the_messages(system, history, tiles)
    elif point.startswith("api.batch_"):
        with patient_client(system, history) as client:
            assert client.submit_batch(tiles), system.nursery.story()
    else:
        submit_all(system, history, tiles)
    with patient_client(system, history) as client:
        assert all(client.follow(job_id) for job_id in history.accepted), system.nursery.story()
    assert wait_until(lambda: not system.crash_file.exists(), 20), "nobody passed the point"
    assert len(history.accepted) == JOBS
    assert system.known_jobs() - before == set(history.accepted)
    assert not history.contradictory
    assert not history.wrong(), [history.ended[job_id] for job_id in history.wrong()]
    assert wait_until(lambda: not system.open_jobs(), 10)
    if point == "cleaner.deleted":
        assert_images_go(system, set(history.accepted))
    assert wait_until(system.is_ready, 30), system.nursery.story()


def assert_images_go(system: System, job_ids: set[str]) -> None:
    """The next cleaner takes up what the dead one had begun."""

    def left() -> set[str]:
        return job_ids & {key.rpartition("/")[2] for key in system.store.list_keys("uploads/")}

    assert wait_until(lambda: not left(), 60), left()


@pytest.mark.integration
@pytest.mark.tensorflow
def test_the_real_engine_passes_its_point_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one above sleeps instead of a model; this one dies between decoding and the network, once."""
    crash_file, folder = tmp_path / "crash-at", newest_bundled_model()
    monkeypatch.setenv(CRASH_AT, str(crash_file))
    supervisor = EngineSupervisor(
        fetch_model=lambda model: folder,
        options=EngineOptions(threads=1, max_batch_size=1, max_pixels=1_000_000, memory_bytes=3 * 10**9),
        timeout_seconds=30,
        command=(sys.executable, "-m", "tests.chaos.engine"),
    )
    model = ModelRef(name="lung-cnn", version="1.0.0", sha256="0" * 64)
    try:
        supervisor.ensure(model)
        crash_file.write_text("engine.mid_batch")
        with pytest.raises(EngineCrashed, match="-9"):
            supervisor.run(model, [png()], [None], [False])
        (outcome,) = supervisor.run(model, [png()], [None], [False])
    finally:
        supervisor.stop()
    assert "result" in outcome


def test_every_point_is_passed_in_one_place() -> None:
    """A name that stands nowhere would test nothing, and one in two places only one of them."""
    passed = [
        name
        for folder in ("api", "shared", "worker")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in re.findall(r'crash_point\("([a-z_.]+)"\)', path.read_text())
    ]
    assert sorted(passed) == sorted(CRASH_POINTS)


def test_every_point_is_in_the_documents_table() -> None:
    """With the sentence that says what has happened there."""
    table = (ROOT / "docs/reference/guarantees.md").read_text()
    assert re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| (.+) \|$", table, re.MULTILINE) == list(
        CRASH_POINTS.items()
    )


def test_a_point_does_nothing_in_service() -> None:
    """A server's own entry points never arm one, whatever the environment says."""
    assert "CRASH_AT" not in "".join(
        path.read_text()
        for folder in ("api", "shared", "worker", "ops")
        for path in (ROOT / folder).rglob("*.py")
    )
