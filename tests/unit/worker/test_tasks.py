"""One message's way through the worker, all in memory, with an engine that does what an image says."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from shared.archive import heatmap_key, quarantine_key
from shared.errors import JobStoreUnavailable, ObjectStoreUnavailable
from shared.job_store import Ending
from shared.schemas import Job, JobStatus, ModelRef
from tests.unit.worker.conftest import World
from tests.work import claim
from worker.attempt import Message
from worker.breaker import MOST_CRASHES
from worker.leases import Lease
from worker.reaper import reap_once
from worker.tasks import MOST_STRIKES


def test_a_message_becomes_a_result(world: World) -> None:
    """The ordinary day: claimed, fetched, inferred, recorded, no lease left."""
    job_id = world.accept(b"tile")
    began = time.perf_counter()
    world.runner.run(job_id)
    took_ms = (time.perf_counter() - began) * 1000
    job = world.job(job_id)
    assert job.status == JobStatus.SUCCEEDED
    assert job.result == {"text": "tile"}
    assert job.timings_ms is not None
    assert set(job.timings_ms) == {"fetch", "decode"}
    assert 0 <= job.timings_ms["fetch"] <= took_ms


@pytest.mark.parametrize("mpp", [None, 0.25])
def test_what_the_caller_said_of_the_scale_reaches_the_engine(world: World, mpp: float | None) -> None:
    """The gate for it is the engine's: only there the version's range is known."""
    world.runner.run(world.accept(b"tile", mpp=mpp))
    assert world.engine.mpps == [mpp]


def test_the_same_message_three_times_is_one_run(world: World) -> None:
    """A duplicate costs one look at the ledger."""
    job_id = world.accept(b"tile")
    for _ in range(3):
        world.runner.run(job_id)
    assert world.engine.runs == [[b"tile"]]
    assert world.job(job_id).attempt == 1


@pytest.mark.parametrize("text", ["", "x", "../../etc/passwd", "job:*", "0" * 36])
def test_a_message_that_is_not_ours_touches_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Whoever can write to the queue has nothing but ids looked up."""
    asked: list[object] = []
    monkeypatch.setattr(world.services.jobs, "claim_all", lambda *what: asked.append(what) or {})
    world.runner.run(text)
    assert (asked, world.engine.runs) == ([], [])


def test_a_bad_image_is_a_failed_job_with_its_reason(world: World) -> None:
    """The engine's word for it reaches the client."""
    job_id = world.accept(b"bad")
    world.runner.run(job_id)
    job = world.job(job_id)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert job.error.code == "INVALID_IMAGE"


def test_an_image_that_is_gone_or_altered_fails_for_good(world: World) -> None:
    """No amount of trying brings it back."""
    gone = world.accept(b"tile")
    world.services.objects.delete(world.key(gone))
    altered = world.accept(b"tile")
    world.services.objects.put(world.key(altered), b"elit", "image/png")
    for job_id in (gone, altered):
        world.runner.run(job_id)
        error = world.job(job_id).error
        assert error is not None
        assert error.code == "INPUT_MISSING"


def test_an_image_that_is_away_for_a_moment_is_looked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a repeated request puts it there once more, as some servers do that."""
    job_id, looks = world.accept(b"tile"), []
    get = world.services.objects.get

    def look(key: str, most: int) -> bytes:
        looks.append(key)
        if len(looks) == 1:
            raise FileNotFoundError(key)
        return get(key, most)

    monkeypatch.setattr(world.services.objects, "get", look)
    world.runner.run(job_id)
    assert (world.job(job_id).status, len(looks)) == (JobStatus.SUCCEEDED, 2)


def test_an_image_that_crashes_the_engine_alone_twice_is_poison(world: World) -> None:
    """Two strikes, and the job ends; the worker lives."""
    job_id = world.accept(b"crash")
    world.runner.run(job_id)
    job = world.job(job_id)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert job.error.code == "POISON"
    assert len(world.engine.runs) == MOST_STRIKES
    good = world.accept(b"tile")
    world.runner.run(good)
    assert world.job(good).status == JobStatus.SUCCEEDED


def test_a_store_that_is_away_costs_no_attempt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job goes back, waits a little, and is published again."""
    job_id = world.accept(b"tile")

    def away(key: str, max_bytes: int) -> bytes:
        raise ObjectStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(world.services.objects, "get", away)
        world.runner.run(job_id)
    job = world.job(job_id)
    assert (job.status, job.attempt, job.lost, job.strikes) == (JobStatus.QUEUED, 0, 0, 0)
    assert reap_once(world.services.jobs, world.services.queue) == 0
    world.now_ms += 6_000
    assert reap_once(world.services.jobs, world.services.queue) == 1
    world.runner.run(job_id)
    assert world.job(job_id).status == JobStatus.SUCCEEDED


def test_a_draining_worker_hands_its_jobs_back_unharmed(world: World) -> None:
    """A deploy is nobody's fault."""
    job_id = world.accept(b"tile")
    world.runner.batcher.drain()
    world.runner.run(job_id)
    job = world.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
    world.now_ms += 1_000
    assert reap_once(world.services.jobs, world.services.queue) == 1


def test_a_job_canceled_while_it_runs_keeps_its_end(world: World) -> None:
    """The outcome is discarded, and nothing is raised."""
    job_id = world.accept(b"tile")
    world.engine.during = lambda: world.services.jobs.cancel(job_id)
    world.runner.run(job_id)
    assert world.job(job_id).status == JobStatus.CANCELED


def test_a_job_store_that_comes_back_within_the_lease_gets_the_outcome(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is done once, although the ledger was away when it ended."""
    job_id = world.accept(b"tile")
    end_all = world.services.jobs.end_all
    answers = iter([True, True, False])

    def away_twice(endings: Sequence[Ending]) -> list[bool]:
        if next(answers):
            raise JobStoreUnavailable("away")
        return end_all(endings)

    monkeypatch.setattr(world.services.jobs, "end_all", away_twice)
    world.runner.run(job_id)
    assert world.job(job_id).status == JobStatus.SUCCEEDED
    assert len(world.engine.runs) == 1


def test_a_suspect_runs_alone(world: World) -> None:
    """A worker was lost with it once: it shares the engine with no other from now on."""
    job_id = world.accept(b"tile")
    claim(world.services.jobs, job_id, "a worker that dies")
    world.now_ms += 16_000
    submitted: list[bool] = []
    submit = world.runner.batcher.submit

    def spy(image: bytes, model: ModelRef, alone: bool, *rest: Any) -> object:
        submitted.append(alone)
        return submit(image, model, alone, *rest)

    world.runner.batcher.submit = spy  # type: ignore[method-assign,assignment]
    world.runner.run(job_id)
    assert submitted == [True]
    assert world.job(job_id).status == JobStatus.SUCCEEDED


def test_a_lease_that_is_renewed_outlives_its_length(world: World) -> None:
    """Renewals keep other workers off; a canceled job's lease is dropped."""
    job_id = world.accept(b"tile")
    lease = Lease(job_id)
    claim(world.services.jobs, job_id, lease.token)
    world.runner.leases.add(lease)
    for _ in range(4):
        world.now_ms += 10_000
        world.runner.leases.renew_all()
    assert lease.is_held
    assert claim(world.services.jobs, job_id, "other") is None
    world.services.jobs.cancel(job_id)
    world.runner.leases.renew_all()
    assert not lease.is_held


def test_a_heat_map_is_there_before_its_result_and_goes_with_the_image(world: World) -> None:
    """Whoever reads that the job has succeeded finds it."""
    job_id = world.accept(b"tile", explain=True)
    world.runner.run(job_id)
    assert world.services.objects.get(heatmap_key(job_id), 100) == b"heat of tile"
    assert "heatmap" not in (world.job(job_id).result or {})
    assert "store" in (world.job(job_id).timings_ms or {})
    world.now_ms += 61_000
    world.clean()
    assert [key for key in world.services.objects.list_keys("") if job_id in key] == []


def test_a_heat_map_that_cannot_be_stored_is_made_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is away is nobody's fault: the job waits, and no attempt is counted."""
    job_id = world.accept(b"tile", explain=True)

    def away(key: str, body: object, media_type: str) -> None:
        raise ObjectStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(world.services.objects, "put", away)
        world.runner.run(job_id)
    assert (world.job(job_id).status, world.job(job_id).attempt) == (JobStatus.QUEUED, 0)
    world.now_ms += 6_000
    reap_once(world.services.jobs, world.services.queue)
    world.runner.run(job_id)
    assert world.job(job_id).status == JobStatus.SUCCEEDED


def test_a_poisonous_image_is_kept_aside(world: World) -> None:
    """For whoever mends the engine; its own retention begins there."""
    job_id = world.accept(b"crash")
    world.runner.run(job_id)
    assert world.services.objects.get(quarantine_key(job_id), 100) == b"crash"


def test_a_job_is_poison_also_where_its_image_cannot_be_kept_aside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome does not wait for a copy."""
    job_id = world.accept(b"crash")

    def away(key: str, body: bytes, content_type: str) -> None:
        raise ObjectStoreUnavailable("away")

    monkeypatch.setattr(world.services.objects, "put", away)
    world.runner.run(job_id)
    assert world.job(job_id).status == JobStatus.FAILED


def test_a_worker_whose_engine_dies_with_each_job_stops_taking_them(world: World) -> None:
    """The third job in a row is handed back after one crash, and not called poison."""
    jobs = [world.accept(b"crash") for _ in range(MOST_CRASHES)]
    for job_id in jobs:
        world.runner.run(job_id)
    assert world.runner.breaker.is_open
    *poison, handed_back = (world.job(job_id).status for job_id in jobs)
    assert poison == [JobStatus.FAILED] * (MOST_CRASHES - 1)
    assert handed_back == JobStatus.QUEUED


def test_a_claim_whose_answer_was_lost_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same token: the job is this worker's already, and loses no worker."""
    job_id = world.accept(b"tile")
    claim_all = world.services.jobs.claim_all
    lost = iter([True, False])

    def answer_lost(*claims: Any) -> dict[str, Job]:
        claimed = claim_all(*claims)
        if next(lost):
            raise JobStoreUnavailable("no answer")
        return claimed

    monkeypatch.setattr(world.services.jobs, "claim_all", answer_lost)
    world.runner.run(job_id)
    job = world.job(job_id)
    assert (job.status, job.attempt, job.lost) == (JobStatus.SUCCEEDED, 1, 0)


def test_a_job_whose_engine_never_answers_holds_up_no_stop_for_ever(world: World) -> None:
    """It is left to its lease; the process ends, and nobody works at it any more."""
    job_id = world.accept(b"tile")
    world.runner.run(world.accept(b"first"))
    may_go = threading.Event()
    world.engine.during = lambda: may_go.wait(10)
    world.runner.take(Message(job_id))
    while len(world.engine.runs) < 2:
        time.sleep(0.001)
    assert not world.runner.stop(0.2)
    assert world.job(job_id).status == JobStatus.RUNNING
    may_go.set()


def test_a_stop_does_not_wait_until_the_breaker_closes(world: World) -> None:
    """What waits there is handed back: the next worker may have an engine that is well."""
    for number in range(MOST_CRASHES):
        world.runner.breaker.crashed(f"job {number}")
    job_id = world.accept(b"tile")
    world.runner.take(Message(job_id))
    assert not world.runner._claiming.acquire(timeout=0.2)
    before = time.monotonic()
    world.runner.batcher.drain()
    assert world.runner.stop(5)
    assert time.monotonic() - before < 2
    assert (world.job(job_id).status, world.job(job_id).attempt) == (JobStatus.QUEUED, 0)
