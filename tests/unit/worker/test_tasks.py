"""One message's way through the worker, all in memory, with an engine that does what an image says."""

import base64
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from shared.archive import Archive, heatmap_key, quarantine_key
from shared.errors import EngineCrashed, JobStoreUnavailable, ObjectStoreUnavailable
from shared.job_store import Ending
from shared.metrics import REGISTRY
from shared.schemas import Job, JobStatus, ModelRef, new_job_id
from shared.services import Services, in_memory
from shared.settings import Settings
from tests.work import claim, new_job, succeed
from worker.batcher import Batcher
from worker.breaker import MOST_CRASHES, CrashBreaker
from worker.leases import Lease, LeaseKeeper
from worker.reaper import MOST_FAILED, archive_once, clean_once, reap_once
from worker.supervisor import Outcome
from worker.tasks import MOST_STRIKES, JobRunner, Message, RunLimits


class Engine:
    """Answers with the image's text; "crash" crashes, "bad" is no image, `during` is called in between."""

    def __init__(self) -> None:
        self.runs: list[list[bytes]] = []
        self.mpps: list[float | None] = []
        self.during: Callable[[], object] = lambda: None
        self.progressed_at = 0.0

    def ensure(self, model: ModelRef) -> None:
        """It is always well."""

    def revive(self) -> None:
        """It is always well."""

    def run(
        self,
        model: ModelRef,
        images: Sequence[bytes],
        mpps: Sequence[float | None] = (),
        explained: Sequence[bool] = (),
    ) -> list[Outcome]:
        """Do what the images say."""
        self.runs.append(list(images))
        self.mpps.extend(mpps)
        self.during()
        if b"crash" in images:
            raise EngineCrashed("died")
        return [
            {"error": {"code": "INVALID_IMAGE", "detail": "no image"}}
            if image == b"bad"
            else {
                "result": {"text": image.decode()},
                "timings_ms": {"decode": 1.0},
                **({"heatmap": base64.b64encode(b"heat of " + image).decode()} if is_explained else {}),
            }
            for image, is_explained in zip(images, explained, strict=True)
        ]


@dataclass
class World:
    """A worker, its surroundings, and a clock."""

    services: Services
    engine: Engine
    runner: JobRunner
    now_ms: int = 1_700_000_000_000

    def accept(self, image: bytes, mpp: float | None = None, explain: bool = False) -> str:
        """Do what the API does with an upload."""
        new = new_job(image, mpp, explain=explain)
        self.services.objects.put(new.spec.input.key, image, "image/png")
        self.services.jobs.create(new, max_open=100)
        return new.id

    def job(self, job_id: str) -> Job:
        """Read the record."""
        return self.services.jobs.get(job_id)

    def key(self, job_id: str) -> str:
        """Return where the image lies."""
        return self.job(job_id).spec.input.key


@pytest.fixture
def world() -> Iterator[World]:
    """A worker with one lane, whose time is moved by the test."""
    made: list[World] = []
    services = in_memory(Settings(), clock_ms=lambda: made[0].now_ms)
    engine = Engine()
    batcher = Batcher(engine, max_batch_size=4)
    leases = LeaseKeeper(services.jobs, 15, lambda: False)
    runner = JobRunner(
        services.jobs,
        services.objects,
        batcher,
        leases,
        CrashBreaker(),
        RunLimits(lease_seconds=15, run_seconds=300),
        ThreadPoolExecutor(8),
    )
    made.append(World(services, engine, runner))
    batcher.start()
    yield made[0]
    batcher.drain()
    batcher.join(5)


def test_a_message_becomes_a_result(world: World) -> None:
    """The ordinary day: claimed, fetched, inferred, recorded, no lease left."""
    job_id = world.accept(b"tile")
    world.runner.run(job_id)
    job = world.job(job_id)
    assert job.status == JobStatus.SUCCEEDED
    assert job.result == {"text": "tile"}
    assert job.timings_ms is not None
    assert set(job.timings_ms) == {"fetch", "decode"}


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
def test_a_message_that_is_not_ours_touches_nothing(world: World, text: str) -> None:
    """Whoever can write to the queue can at most waste a lookup."""
    world.runner.run(text)
    assert world.engine.runs == []


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


def test_an_image_is_deleted_when_its_time_is_over(world: World) -> None:
    """Not before, and nothing but the image: the result is still there."""
    job_id = world.accept(b"tile")
    world.runner.run(job_id)
    assert clean_once(world.services.jobs, world.services.objects) == 0
    world.now_ms += 61_000
    assert clean_once(world.services.jobs, world.services.objects) == 1
    assert world.services.objects.list_keys("uploads/") == []
    assert world.job(job_id).result == {"text": "tile"}


def refusing(real: Callable[..., None], job_id: str) -> Callable[..., None]:
    """Return a call of the object store that refuses one job's keys."""

    def refuse_one(key: str, *rest: object) -> None:
        if job_id in key:
            raise ObjectStoreUnavailable("refused")
        real(key, *rest)

    return refuse_one


def test_an_image_that_cannot_be_deleted_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refuses one key: it is tried again later, and everything else goes."""
    refused, other = world.accept(b"tile"), world.accept(b"other")
    for job_id in (refused, other):
        world.runner.run(job_id)
    objects, jobs = world.services.objects, world.services.jobs
    world.now_ms += 61_000
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(objects, "delete", refusing(objects.delete, refused))
        assert clean_once(jobs, objects, pool) == 1
        assert objects.list_keys("uploads/") == [world.key(refused)]
        assert clean_once(jobs, objects) == 0
    world.now_ms += 61_000
    assert clean_once(jobs, objects) == 1
    assert objects.list_keys("uploads/") == []


def test_a_store_that_is_away_is_not_asked_to_delete_each_image(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first refusal ends the turn; it is made again later."""
    for _ in range(3):
        world.runner.run(world.accept(b"tile"))
    asked = []

    def away(key: str = "") -> None:
        asked.append(key)
        raise ObjectStoreUnavailable("away")

    monkeypatch.setattr(world.services.objects, "delete", away)
    monkeypatch.setattr(world.services.objects, "ping", away)
    world.now_ms += 61_000
    with pytest.raises(ObjectStoreUnavailable):
        clean_once(world.services.jobs, world.services.objects)
    assert len(asked) == 2


def test_a_turn_in_which_nothing_can_be_done_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is there and refuses every key, for want of a right: no line in the log for each of them."""
    for _ in range(MOST_FAILED + 3):
        world.runner.run(world.accept(b"tile"))
    asked = []

    def refuse(key: str, *_: object) -> None:
        asked.append(key)
        raise ObjectStoreUnavailable("refused")

    objects = world.services.objects
    monkeypatch.setattr(objects, "put_all", refuse)
    monkeypatch.setattr(objects, "put", refuse)
    monkeypatch.setattr(objects, "delete", refuse)
    with ThreadPoolExecutor(1) as pool:
        assert archive_once(world.services.jobs, objects, pool) == 0
    assert len(asked) == 1 + MOST_FAILED
    world.now_ms += 61_000
    assert clean_once(world.services.jobs, objects) == 0
    assert len(asked) == 1 + 2 * MOST_FAILED


def test_many_that_cannot_be_deleted_hold_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one could be, the store is well: those behind them are tried, too."""
    images = [b"goes", *[b"stays"] * (MOST_FAILED + 1), b"goes"]
    jobs = [world.accept(image) for image in images]
    for job_id in jobs:
        world.runner.run(job_id)
        world.now_ms += 1000
    objects, refused = world.services.objects, jobs[1:-1]
    delete = objects.delete

    def refuse(key: str) -> None:
        if key.rpartition("/")[2] in refused:
            raise ObjectStoreUnavailable("refused")
        delete(key)

    monkeypatch.setattr(objects, "delete", refuse)
    world.now_ms += 61_000
    assert clean_once(world.services.jobs, objects) == 2
    assert sorted(objects.list_keys("uploads/")) == sorted(map(world.key, refused))


def test_a_heat_map_is_there_before_its_result_and_goes_with_the_image(world: World) -> None:
    """Whoever reads that the job has succeeded finds it."""
    job_id = world.accept(b"tile", explain=True)
    world.runner.run(job_id)
    assert world.services.objects.get(heatmap_key(job_id), 100) == b"heat of tile"
    assert "heatmap" not in (world.job(job_id).result or {})
    assert "store" in (world.job(job_id).timings_ms or {})
    world.now_ms += 61_000
    clean_once(world.services.jobs, world.services.objects)
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


def test_a_message_that_was_lost_is_published_again(world: World) -> None:
    """It left the queue and reached nobody."""
    job_id = world.accept(b"tile")
    world.services.queue.messages.clear()  # type: ignore[attr-defined]
    assert reap_once(world.services.jobs, world.services.queue) == 0
    world.now_ms += 4_000
    assert reap_once(world.services.jobs, world.services.queue) == 1
    assert [item for item, _ in world.services.queue.messages] == [job_id]  # type: ignore[attr-defined]


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


def test_an_outcome_is_kept_in_the_object_store_too(world: World) -> None:
    """Whole, and once."""
    job_id = world.accept(b"tile")
    world.runner.run(job_id)
    with ThreadPoolExecutor(2) as pool:
        assert archive_once(world.services.jobs, world.services.objects, pool) == 1
        assert archive_once(world.services.jobs, world.services.objects, pool) == 0
    assert Archive(world.services.objects).get(job_id) == world.job(job_id)


def test_an_outcome_that_cannot_be_stored_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refuses one key; the others are there, and only that one is tried again."""
    refused, stored = world.accept(b"tile"), world.accept(b"other")
    for job_id in (refused, stored):
        world.runner.run(job_id)
    objects, jobs = world.services.objects, world.services.jobs
    monkeypatch.setattr(objects, "put", refusing(objects.put, refused))
    with ThreadPoolExecutor(1) as pool:
        assert archive_once(jobs, objects, pool) == 1
    assert Archive(objects).get(stored) == world.job(stored)
    world.now_ms += 31_000
    assert [job.id for job in jobs.unarchived(10)] == [refused]


def test_a_store_that_is_away_is_not_asked_for_each_outcome(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take hours where it hangs."""
    world.runner.run(world.accept(b"tile"))
    objects = world.services.objects

    def away(*_: object) -> None:
        raise ObjectStoreUnavailable("away")

    monkeypatch.setattr(objects, "put", away)
    monkeypatch.setattr(objects, "ping", away)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ObjectStoreUnavailable):
        archive_once(world.services.jobs, objects, pool)


def test_an_outcome_deleted_while_it_is_archived_leaves_no_copy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner's word comes last."""
    job_id = world.accept(b"tile")
    world.runner.run(job_id)
    objects = world.services.objects
    put = objects.put

    def deleted_meanwhile(key: str, body: bytes, content_type: str) -> None:
        world.services.jobs.delete(job_id)
        put(key, body, content_type)

    monkeypatch.setattr(objects, "put", deleted_meanwhile)
    with ThreadPoolExecutor(1) as pool:
        archive_once(world.services.jobs, objects, pool)
    assert objects.list_keys("results/") == []


def test_an_outcome_that_changes_while_it_is_archived_is_archived_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner retried it just then, and it has succeeded: the object store does not keep the failure."""
    job_id = world.accept(b"bad")
    world.runner.run(job_id)
    jobs, objects = world.services.jobs, world.services.objects
    put_all = objects.put_all

    def retried_meanwhile(news: Any, pool: Any) -> None:
        monkeypatch.undo()
        jobs.retry(job_id, 10)
        claim(jobs, job_id)
        succeed(jobs, job_id, {"text": "tile"})
        put_all(news, pool)

    monkeypatch.setattr(objects, "put_all", retried_meanwhile)
    with ThreadPoolExecutor(1) as pool:
        archive_once(jobs, objects, pool)
        archive_once(jobs, objects, pool)
    assert Archive(objects).get(job_id) == jobs.get(job_id)


def test_an_outcome_that_is_archived_anew_while_the_earlier_one_is_withdrawn_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was open again when the ledger said so, and by now another worker has put there how it ended."""
    job_id = world.accept(b"bad")
    world.runner.run(job_id)
    jobs, objects = world.services.jobs, world.services.objects
    archived = jobs.archived

    def runs_meanwhile(ended: Any) -> list[str]:
        monkeypatch.undo()
        jobs.retry(job_id, 10)
        unwanted = archived(ended)
        claim(jobs, job_id)
        succeed(jobs, job_id, {"text": "tile"})
        Archive(objects).put_heatmap(job_id, b"a picture")
        archive_once(jobs, objects, pool)
        return unwanted

    monkeypatch.setattr(jobs, "archived", runs_meanwhile)
    with ThreadPoolExecutor(1) as pool:
        archive_once(jobs, objects, pool)
        world.now_ms += 31_000
        archive_once(jobs, objects, pool)
    assert Archive(objects).get(job_id) == jobs.get(job_id)
    assert Archive(objects).get_heatmap(job_id) == b"a picture"


def test_an_outcome_past_its_retention_goes_from_the_object_store_too(world: World) -> None:
    """Image first, then the outcome, both copies of it."""
    job_id = world.accept(b"tile")
    world.runner.run(job_id)
    with ThreadPoolExecutor(1) as pool:
        archive_once(world.services.jobs, world.services.objects, pool)
    for seconds, left in ((61, ["results/"]), (601, [])):
        world.now_ms += seconds * 1000
        clean_once(world.services.jobs, world.services.objects)
        keys = world.services.objects.list_keys("")
        assert [
            prefix for prefix in ("uploads/", "results/") if any(k.startswith(prefix) for k in keys)
        ] == left


def test_what_a_deletion_could_not_remove_is_removed_later(world: World) -> None:
    """Image, outcome and quarantined image."""
    job_id = world.accept(b"crash")
    world.runner.run(job_id)
    with ThreadPoolExecutor(1) as pool:
        archive_once(world.services.jobs, world.services.objects, pool)
    world.services.jobs.delete(job_id)
    world.now_ms += 1000
    clean_once(world.services.jobs, world.services.objects)
    assert world.services.objects.list_keys("") == []


class Exchanges:
    """Counts how many jobs each call of the ledger was about."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.claimed: list[int] = []
        self.ended: list[int] = []
        jobs = world.services.jobs
        claim_all, end_all = jobs.claim_all, jobs.end_all

        def claims(tokens: Mapping[str, str], *rest: Any) -> dict[str, Job]:
            self.claimed.append(len(tokens))
            return claim_all(tokens, *rest)

        def ends(endings: Sequence[Ending]) -> list[bool]:
            self.ended.append(len(endings))
            return end_all(endings)

        monkeypatch.setattr(jobs, "claim_all", claims)
        monkeypatch.setattr(jobs, "end_all", ends)


def take_together(world: World, job_ids: Sequence[str]) -> list[str]:
    """Have these messages come while another group is being claimed; return the ids as they end."""
    ended: list[str] = []
    with world.runner._claiming:
        for job_id in job_ids:
            world.runner.take(Message(job_id, ended=partial(ended.append, job_id)))
    return ended


def test_messages_that_wait_together_are_claimed_and_ended_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One exchange for four claims, one for what one micro-batch gave."""
    jobs = [world.accept(b"tile %d" % number) for number in range(4)]
    exchanges = Exchanges(world, monkeypatch)
    # The engine gets nothing before it can get all of it.
    may_begin = threading.Event()
    world.runner.run(blocker := world.accept(b"first"))
    world.engine.during = lambda: may_begin.wait(10)
    world.runner.take(Message(world.accept(b"busy")))
    while len(world.engine.runs) < 2:
        time.sleep(0.001)
    ended = take_together(world, jobs)
    while len(world.runner.batcher._waiting) < len(jobs):
        time.sleep(0.001)
    may_begin.set()
    world.runner.stop()
    assert sorted(ended) == sorted(jobs)
    assert exchanges.claimed == [1, 1, 4]
    assert sum(exchanges.ended) == 6
    # With the one before them, if that was still to be written.
    assert max(exchanges.ended) >= 4
    for job_id in (blocker, *jobs):
        assert world.job(job_id).status == JobStatus.SUCCEEDED


def test_in_a_group_each_has_its_own_end(world: World) -> None:
    """A good one, a bad one, one that is gone, one unknown, one twice, one that is no id."""
    good, bad, gone, twice = (world.accept(image) for image in (b"good", b"bad", b"gone", b"twice"))
    world.services.objects.delete(world.key(gone))
    group = [good, bad, gone, new_job_id(), twice, twice, "no id"]
    ended = take_together(world, group)
    world.runner.stop()
    assert sorted(ended) == sorted(group)
    assert [world.job(job_id).status for job_id in (good, bad, gone, twice)] == [
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.FAILED,
        JobStatus.SUCCEEDED,
    ]
    assert world.job(twice).attempt == 1
    assert not world.runner.leases._leases


def test_one_that_crashes_the_engine_spoils_no_other_of_its_group(world: World) -> None:
    """It is alone at fault, and alone in its end."""
    good = [world.accept(b"good %d" % number) for number in range(3)]
    poison = world.accept(b"crash")
    take_together(world, [good[0], poison, *good[1:]])
    world.runner.stop()
    assert [world.job(job_id).status for job_id in good] == [JobStatus.SUCCEEDED] * 3
    assert world.job(poison).status == JobStatus.FAILED


def test_one_whose_heat_map_is_stored_slowly_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were answered together; the other one ends at once."""
    slow, good = world.accept(b"slow", explain=True), world.accept(b"good")
    may_store = threading.Event()
    put = world.services.objects.put

    def put_slowly(key: str, body: bytes, content_type: str) -> None:
        assert may_store.wait(10)
        put(key, body, content_type)

    monkeypatch.setattr(world.services.objects, "put", put_slowly)
    monkeypatch.setattr(world.runner._answered, "_call", lambda: None)
    ended = take_together(world, [slow, good])
    while len(world.runner._answered._items) < 2:
        time.sleep(0.001)
    world.runner._pool.submit(world.runner._conclude_answered)
    until = time.monotonic() + 5
    while not ended and time.monotonic() < until:
        time.sleep(0.001)
    assert ended == [good]
    may_store.set()
    world.runner.stop()
    assert ended == [good, slow]
    assert world.job(slow).status == JobStatus.SUCCEEDED


def test_a_bug_in_one_outcome_spoils_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job is found by its lease; every message is answered for."""
    broken, good = world.accept(b"broken"), world.accept(b"good")
    keep = world.runner._keep_heatmap

    def keep_or_not(job: Job, *rest: Any) -> None:
        if job.id == broken:
            raise KeyError("a bug")
        keep(job, *rest)

    monkeypatch.setattr(world.runner, "_keep_heatmap", keep_or_not)
    ended = take_together(world, [broken, good])
    world.runner.stop()
    assert sorted(ended) == sorted([broken, good])
    assert world.job(good).status == JobStatus.SUCCEEDED
    assert world.job(broken).status == JobStatus.RUNNING
    assert not world.runner.leases._leases
    monkeypatch.undo()
    world.now_ms += 16_000
    assert reap_once(world.services.jobs, world.services.queue) == 1


def test_a_ledger_that_is_away_leaves_no_message_unanswered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where the jobs cannot be claimed nor where a bug is in the way."""
    for error in (JobStoreUnavailable("away"), KeyError("a bug")):
        jobs = [world.accept(b"tile"), world.accept(b"tile")]

        def away(*_: object, error: Exception = error) -> dict[str, Job]:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(world.services.jobs, "claim_all", away)
            ended = take_together(world, jobs)
            while len(ended) < len(jobs):
                time.sleep(0.001)
        assert [world.job(job_id).status for job_id in jobs] == [JobStatus.QUEUED] * 2


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


def test_images_from_a_server_are_fetched_side_by_side(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow server costs a group as long as one image, not as long as all of them."""
    both = threading.Barrier(2, timeout=10)
    get = world.services.objects.get

    def together(key: str, max_bytes: int) -> bytes:
        both.wait()
        return get(key, max_bytes)

    monkeypatch.setattr(world.services.objects, "get", together)
    monkeypatch.setattr(world.runner, "_fetchers", ThreadPoolExecutor(2))
    jobs = [world.accept(b"tile"), world.accept(b"tile")]
    take_together(world, jobs)
    world.runner.stop()
    assert [world.job(job_id).status for job_id in jobs] == [JobStatus.SUCCEEDED] * 2


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


def test_an_outcome_that_cannot_be_written_spoils_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that the ledger makes an error of: the others end at once, and it alone is tried again."""
    broken, refused, good = (world.accept(image) for image in (b"broken", b"refused", b"good"))
    exchanges = Exchanges(world, monkeypatch)
    end_all, answer = world.services.jobs.end_all, world.runner._answer

    def ends(endings: Sequence[Ending]) -> list[bool | Exception]:
        is_first = not exchanges.ended
        return [
            JobStoreUnavailable("WRONGTYPE") if is_first and ending.job_id == refused else said
            for ending, said in zip(endings, end_all(endings), strict=True)
        ]

    def answers(run: Any) -> Outcome:
        outcome = answer(run)
        return {"result": {"value": object()}} if run.job.id == broken else outcome

    monkeypatch.setattr(world.services.jobs, "end_all", ends)
    monkeypatch.setattr(world.runner, "_answer", answers)
    monkeypatch.setattr(world.runner._answered, "_call", lambda: None)
    ended = take_together(world, [broken, refused, good])
    while len(world.runner._answered._items) < 3:
        time.sleep(0.001)
    world.runner._pool.submit(world.runner._conclude_answered)
    world.runner.stop()
    assert sorted(ended) == sorted([broken, refused, good])
    assert world.job(broken).status == JobStatus.RUNNING
    assert [world.job(job_id).status for job_id in (refused, good)] == [JobStatus.SUCCEEDED] * 2
    assert exchanges.ended == [3, 1]


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


@pytest.mark.parametrize(
    ("standing", "counted"),
    [
        ([3, 0, 60, 0, 60_000], 1),
        ([3, 0, 0, 0, 60_000], 0),
        (None, 0),
        ("soon", 0),
        # As an earlier program's.
        ([3, 0, 60, 0], 0),
        (["a", "b", "c", "d", "e"], 0),
    ],
)
def test_how_well_a_forecast_held_is_measured(world: World, standing: object, counted: int) -> None:
    """By a job's first attempt, where its client was told anything: three ahead, one a second, is 3 s."""
    before, early_before = eta_errors("+Inf"), eta_errors("-2.0")
    world.runner.run(world.accept(b"tile"), standing)
    assert eta_errors("+Inf") - before == counted
    assert eta_errors("-2.0") - early_before == counted
    assert eta_errors("-5.0") == 0


def test_a_forecast_that_nobody_made_spoils_no_others_outcome(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write to the queue can put any number there, also one that no division takes."""
    forged, good = world.accept(b"forged"), world.accept(b"good")
    monkeypatch.setattr(world.runner._answered, "_call", lambda: None)
    before = attempts()
    with world.runner._claiming:
        world.runner.take(Message(forged, [1, 0, 10**400, 0, 60_000]))
        world.runner.take(Message(good))
    while len(world.runner._answered._items) < 2:
        time.sleep(0.001)
    world.runner._pool.submit(world.runner._conclude_answered)
    world.runner.stop()
    assert attempts()[0] - before[0] == 2


def test_a_job_that_is_handed_back_says_nothing_of_the_forecast(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not ended."""

    def away(key: str, max_bytes: int) -> bytes:
        raise ObjectStoreUnavailable("away")

    before = eta_errors("+Inf")
    job_id = world.accept(b"tile")
    monkeypatch.setattr(world.services.objects, "get", away)
    world.runner.run(job_id, [3, 0, 60, 0, 60_000])
    assert eta_errors("+Inf") == before


def test_attempts_are_counted_by_what_became_of_them(world: World) -> None:
    """An outcome that came too late is dropped, and what a worker that is shutting down has is released."""
    before = attempts()
    world.runner.run(world.accept(b"tile"))
    world.runner.run(world.accept(b"bad"))
    canceled = world.accept(b"tile")
    world.engine.during = lambda: world.services.jobs.cancel(canceled)
    world.runner.run(canceled)
    late = world.accept(b"tile")
    world.runner.batcher.drain()
    world.runner.run(late)
    assert [now - then for now, then in zip(attempts(), before, strict=True)] == [1, 1, 1, 1]


def attempts() -> list[float]:
    """Return how many attempts there were of each kind."""
    name = "histoqueue_worker_attempts_total"
    kinds = ("succeeded", "failed", "dropped", "released")
    return [REGISTRY.get_sample_value(name, {"outcome": kind}) or 0.0 for kind in kinds]


def eta_errors(at_most: str) -> float:
    """Return how many forecasts were off by so many seconds at the most, as Prometheus counts."""
    name = "histoqueue_worker_eta_error_seconds_bucket"
    return REGISTRY.get_sample_value(name, {"le": at_most}) or 0.0
