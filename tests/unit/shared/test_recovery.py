"""A ledger that lost its data, beside an object store that did not."""

import io
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import structlog

from shared.archive import HEATMAPS, QUARANTINE, RESULTS, Archive
from shared.batch_archive import BatchArchive
from shared.envelope import AcceptedJob, seal
from shared.errors import BatchNotFound, JobNotFound, LedgerRebuilding, ObjectStoreUnavailable, ResultExpired
from shared.job_store_memory import MemoryJobStore
from shared.recovery import (
    IN_FLIGHT_SECONDS,
    LONGEST_WAIT_SECONDS,
    SILENCE_SECONDS,
    UPLOADS,
    Sweep,
    Swept,
    found_if_empty,
    founded,
    remembered,
    sweep_when_due,
)
from shared.schemas import (
    Idempotency,
    Job,
    JobStatus,
    NewBatch,
    NewJob,
    new_job_id,
)
from shared.services import Services, in_memory
from shared.settings import Settings
from tests.work import claim, new_job, succeed

#: Where something of a job may lie.
KEPT = (UPLOADS, HEATMAPS, RESULTS, QUARANTINE)
SETTINGS = Settings()
HOUR = 3600.0


class World:
    """One installation, whose time and whose Redis are in the test's hand."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000
        self.services: Services = in_memory(SETTINGS, lambda: self.now_ms)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += int(seconds * 1000)

    def accept(
        self,
        key: str | None = None,
        record: bool = True,
        expires_in: float = HOUR,
        batch: str | None = None,
        fingerprint: str = "f",
    ) -> NewJob:
        """Do what the API does; without `record`, as a request does that breaks off half-way."""
        repeat = Idempotency(key=key, fingerprint=fingerprint) if key else None
        new = new_job(mpp=0.5, expires_in=expires_in, idempotency=repeat, batch=batch)
        file = io.BytesIO(b"image")
        seal(file, AcceptedJob(job=new, accepted_at_ms=self.now_ms))
        self.services.objects.put(new.spec.input.key, file, "image/png")
        if record:
            self.services.jobs.create(new, 1000)
        return new

    def finish(self, new: NewJob) -> Job:
        """Do what a worker and its archiver do."""
        jobs = self.services.jobs
        assert claim(jobs, new.id)
        assert succeed(jobs, new.id, {"class": "lung_n"})
        job = jobs.get(new.id)
        Archive(self.services.objects).put(job)
        jobs.archived([job])
        return job

    def wipe(self) -> None:
        """Redis is there, and empty."""
        jobs = MemoryJobStore(lambda: self.now_ms, founded=False)
        self.services = replace(self.services, jobs=jobs, queue=jobs.queue)

    def sweep(self) -> Swept | None:
        """Compare once; waiting only moves the clock."""
        return Sweep(self.services, SETTINGS, lambda: self.now_ms, self.advance).run()


@pytest.fixture
def world() -> World:
    return World()


def test_a_job_that_was_accepted_is_accepted_again_with_every_option(world: World) -> None:
    """The same id, the same words, the same deadline, and a message for a worker."""
    new = world.accept(key="k")
    before = world.services.jobs.get(new.id)
    world.advance(60)
    world.wipe()
    assert world.sweep() == Swept(restored=1)
    after = world.services.jobs.get(new.id)
    assert after.spec == before.spec
    assert (after.created_at_ms, after.deadline_ms) == (before.created_at_ms, before.deadline_ms)
    assert after.status == JobStatus.QUEUED
    assert [item for item, _ in world.services.queue.messages] == [new.id]  # type: ignore[attr-defined]
    replay = world.services.jobs.find_replay(Idempotency(key="k", fingerprint="f"))
    assert replay is not None
    assert replay.id == new.id


def test_an_image_as_large_as_may_be_is_taken_in_again(world: World) -> None:
    """Its job lies behind it in the same object."""
    new = world.accept()
    world.advance(60)
    world.wipe()
    settings = SETTINGS.model_copy(update={"max_image_bytes": len(b"image")})
    assert Sweep(world.services, settings, lambda: world.now_ms, world.advance).run() == Swept(restored=1)
    assert world.services.jobs.get(new.id).status == JobStatus.QUEUED


def test_a_job_that_had_ended_is_not_run_again(world: World) -> None:
    """Its outcome is in the object store."""
    new = world.accept()
    ended = world.finish(new)
    world.wipe()
    assert world.sweep() == Swept()
    assert world.services.jobs.depth().open == 0
    assert Archive(world.services.objects).get(new.id) == ended


def test_a_repetition_of_a_request_whose_job_had_ended_finds_it_again(world: World) -> None:
    """By its key, which stands with its image; one whose result is past its retention is not taken in."""
    ended, found = world.finish(world.accept(key="k")), []
    for seconds in (599, 2):
        world.advance(seconds)
        world.wipe()
        world.sweep()
        found.append(world.services.jobs.find_replay(Idempotency(key="k", fingerprint="f")))
    assert found == [ended, None]


def test_uploads_are_read_side_by_side(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server far away takes its time over each, and the ledger is not whole before the last one."""
    new, objects = [world.accept() for _ in range(4)], world.services.objects
    get, together = objects.get, threading.Barrier(4)

    def slow(key: str, max_bytes: int) -> bytes:
        if key.startswith(UPLOADS):
            together.wait(timeout=10)
        return get(key, max_bytes)

    world.advance(60)
    world.wipe()
    monkeypatch.setattr(objects, "get", slow)
    assert world.sweep() == Swept(restored=len(new))


def test_a_job_past_its_deadline_ends_as_expired(world: World) -> None:
    """Its time in the queue did not begin anew."""
    new = world.accept(expires_in=30)
    world.advance(60)
    world.wipe()
    world.sweep()
    assert world.services.jobs.get(new.id).status == JobStatus.EXPIRED


def test_a_ledger_that_lost_its_data_does_not_deny_a_job(world: World) -> None:
    """Until it is whole again it says so, and not that the id was never issued."""
    new = world.accept(key="k")
    world.advance(60)
    world.wipe()
    jobs = world.services.jobs
    for call in (
        lambda: jobs.get(new.id),
        lambda: jobs.cancel(new.id),
        lambda: jobs.delete(new.id),
        lambda: jobs.find_replay(Idempotency(key="k", fingerprint="f")),
        lambda: jobs.create(world.accept(key="k", record=False), 1000),
        lambda: founded(world.services, lambda: jobs.get(new.id)),
    ):
        with pytest.raises(LedgerRebuilding):
            call()
    world.sweep()
    with pytest.raises(JobNotFound):
        jobs.get(new_job_id())


def test_a_lost_job_is_known_to_each_of_several_requests_that_come_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them takes it in; whoever comes second to that is answered no worse."""
    job = world.finish(world.accept())
    world.wipe()
    jobs = world.services.jobs
    restore_ended = jobs.restore_ended

    def come_second(*what: Any) -> bool:
        assert restore_ended(*what)
        return restore_ended(*what)

    monkeypatch.setattr(jobs, "restore_ended", come_second)
    assert remembered(world.services, SETTINGS, job.id, lambda: jobs.get(job.id)) == job


def test_a_lost_job_that_another_request_has_just_deleted_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion that is repeated is no mistake of the caller's."""
    job = world.finish(world.accept())
    world.wipe()
    jobs, archive = world.services.jobs, Archive(world.services.objects)
    get = world.services.objects.get

    def delete_first(key: str, max_bytes: int) -> bytes:
        jobs.restore_ended(job, 60, 600)
        jobs.delete(job.id)
        archive.forget(job.id)
        return get(key, max_bytes)

    monkeypatch.setattr(world.services.objects, "get", delete_first)
    assert remembered(world.services, SETTINGS, job.id, lambda: jobs.delete(job.id)) == job.spec.input.key


def test_a_new_installation_is_whole_at_once(world: World) -> None:
    """There is nothing to rebuild, so nobody has to wait for a worker."""
    world.wipe()
    with pytest.raises(JobNotFound):
        founded(world.services, lambda: world.services.jobs.get(new_job_id()))
    assert world.services.jobs.is_founded()


def test_with_uploads_only_a_comparison_makes_the_ledger_whole(world: World) -> None:
    """The API cannot declare it by itself."""
    world.accept()
    world.wipe()
    assert not found_if_empty(world.services)
    assert not world.services.jobs.is_founded()


def test_the_upload_of_a_request_that_broke_off_is_run_once(world: World) -> None:
    """Nobody knows its id; running it lets its image be cleaned as any other's."""
    new = world.accept(record=False)
    world.advance(HOUR / 2)
    assert world.sweep() == Swept(restored=1)
    assert world.sweep() == Swept()
    assert world.services.jobs.get(new.id).status == JobStatus.QUEUED


def test_a_request_in_flight_is_left_to_itself(world: World) -> None:
    """Its image is stored, its job is recorded a moment later: that makes one job, by the request."""
    new = world.accept(record=False)
    sweep = Sweep(
        world.services,
        SETTINGS,
        lambda: world.now_ms,
        lambda seconds: (world.advance(seconds), world.services.jobs.create(new, 1000)),
    )
    assert sweep.run() == Swept()
    assert world.services.jobs.depth().open == 1


def test_one_that_stays_in_flight_is_taken_in_by_the_same_comparison(world: World) -> None:
    """A request that died a second before the loss is not left for half an hour."""
    world.accept(record=False)
    began = world.now_ms
    assert world.sweep() == Swept(restored=1)
    assert world.now_ms - began == IN_FLIGHT_SECONDS * 1000


def test_two_uploads_with_one_key_are_both_run(world: World) -> None:
    """Which of them was answered with 202 cannot be told, and that one must not be lost."""
    broken_off, answered = world.accept(key="k", record=False), world.accept(key="k", record=False)
    world.advance(60)
    world.wipe()
    assert world.sweep() == Swept(restored=2)
    for new in (broken_off, answered):
        assert world.services.jobs.get(new.id).status == JobStatus.QUEUED


def test_an_upload_that_is_deleted_while_it_is_looked_at_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has just had it deleted."""
    gone, other = world.accept(record=False), world.accept(record=False)
    world.advance(60)
    get = world.services.objects.get

    def deleted_before(key: str, max_bytes: int) -> bytes:
        if key == gone.spec.input.key:
            world.services.objects.delete(key)
        return get(key, max_bytes)

    monkeypatch.setattr(world.services.objects, "get", deleted_before)
    assert world.sweep() == Swept(restored=1)
    assert world.services.jobs.get(other.id).status == JobStatus.QUEUED


def test_two_requests_with_one_key_are_both_run(world: World) -> None:
    """One was refused, or broke off before it could be: its upload keeps nobody from being taken in."""
    for fingerprint in ("f", "g"):
        world.accept(key="k", record=False, fingerprint=fingerprint)
    world.advance(60)
    world.wipe()
    assert world.sweep() == Swept(restored=2)
    assert world.services.jobs.is_founded()


def test_a_comparison_that_takes_long_keeps_its_right_to_compare(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows a sign of life between batches, and between some uploads and the next."""
    for number in range(3):
        _, jobs = begin_batch(world, 1, key=str(number))
        world.finish(jobs[0])
        world.services.objects.delete(jobs[0].spec.input.key)
        world.accept(record=False)
    world.advance(60)
    world.wipe()
    get = world.services.objects.get

    def get_slowly(key: str, max_bytes: int) -> bytes:
        world.advance(SILENCE_SECONDS * 0.45)
        return get(key, max_bytes)

    monkeypatch.setattr("shared.recovery._AT_ONCE", 1)
    monkeypatch.setattr("shared.recovery._READERS", 1)
    monkeypatch.setattr(world.services.objects, "get", get_slowly)
    assert world.sweep() == Swept(restored=3)


def test_what_nobody_else_would_delete_goes_when_its_time_is_over(world: World) -> None:
    """What is kept of jobs that the ledger has forgotten, each at its own time; a heat map as its image."""
    new = world.accept()
    ended = world.finish(new)
    Archive(world.services.objects).quarantine(ended, b"image")
    Archive(world.services.objects).put_heatmap(ended.id, b"heat")
    world.wipe()
    objects = world.services.objects
    left = []
    for seconds in (
        SETTINGS.image_retention_seconds,
        SETTINGS.result_retention_seconds - SETTINGS.image_retention_seconds,
        SETTINGS.quarantine_retention_seconds - SETTINGS.result_retention_seconds,
    ):
        world.advance(seconds - 1)
        world.sweep()
        left.append([len(objects.list_keys(prefix)) for prefix in KEPT])
        world.advance(2)
        world.sweep()
        left.append([len(objects.list_keys(prefix)) for prefix in KEPT])
        world.advance(-1)
    assert left == [
        [1, 1, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]


def test_an_open_job_keeps_its_image_however_long_it_waits(world: World) -> None:
    """The comparison only removes what the ledger does not know."""
    new = world.accept(expires_in=1e9)
    world.advance(SETTINGS.quarantine_retention_seconds * 2)
    assert world.sweep() == Swept()
    assert world.services.objects.list_keys(UPLOADS) == [new.spec.input.key]


def test_what_is_not_ours_is_left_alone_and_told(world: World) -> None:
    """Objects under other names, or without a job behind them."""
    for key in (f"{UPLOADS}readme.txt", f"{UPLOADS}2026/11/22/{new_job_id()}"):
        world.services.objects.put(key, b"something", "text/plain")
    world.advance(1e8)
    assert world.sweep() == Swept(not_understood=1)
    assert len(world.services.objects.list_keys(UPLOADS)) == 2


def test_only_one_compares_at_a_time_and_only_when_it_is_due(world: World) -> None:
    """Many workers look every two seconds."""
    assert sweep_when_due(world.services, SETTINGS) == Swept()
    assert sweep_when_due(world.services, SETTINGS) is None
    world.advance(HOUR)
    assert world.services.jobs.begin_sweep(60)
    assert sweep_when_due(world.services, SETTINGS) is None


def test_a_second_loss_in_the_middle_leaves_the_ledger_unfounded(world: World) -> None:
    """What was restored before it is gone again, so the next comparison must do it all."""
    world.accept(record=False)
    world.wipe()
    jobs = world.services.jobs

    def lose_everything(seconds: float) -> None:
        world.advance(seconds)
        jobs.__init__(lambda: world.now_ms, founded=False)  # type: ignore[misc]

    assert Sweep(world.services, SETTINGS, lambda: world.now_ms, lose_everything).run() is None
    assert not jobs.is_founded()
    assert world.sweep() is not None
    assert jobs.is_founded()


def test_a_store_that_answers_slowly_does_not_cost_the_right_to_compare(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second for each of so many objects is longer than a silence that counts as an end."""
    objects = world.services.objects
    new = [world.finish(world.accept()) for _ in range(2 * int(SILENCE_SECONDS))]
    world.wipe()
    get = objects.get

    def get_slowly(key: str, max_bytes: int) -> bytes:
        world.advance(1)
        return get(key, max_bytes)

    monkeypatch.setattr(objects, "get", get_slowly)
    assert world.sweep() is not None
    assert world.services.jobs.is_founded()
    assert len(objects.list_keys(RESULTS)) == len(new)


def test_a_store_that_goes_away_ends_the_comparison_and_the_next_one_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is declared whole that was not looked at, and the right to compare is given back."""
    world.accept(record=False)
    world.advance(60)
    world.wipe()

    def away(*_: object) -> bytes:
        raise ObjectStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(world.services.objects, "get", away)
        patch.setattr(world.services.objects, "ping", away)
        with pytest.raises(ObjectStoreUnavailable):
            world.sweep()
    assert not world.services.jobs.is_founded()
    assert world.sweep() == Swept(restored=1)


def test_an_upload_that_cannot_be_read_keeps_no_other_from_coming_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is not whole before it can: it may be an accepted job's."""
    unreadable, other = sorted((world.accept(), world.accept()), key=lambda new: new.spec.input.key)
    world.wipe()
    world.advance(20)
    get = world.services.objects.get

    def refuse_one(key: str, max_bytes: int) -> bytes:
        if key == unreadable.spec.input.key:
            raise ObjectStoreUnavailable("refused")
        return get(key, max_bytes)

    with monkeypatch.context() as patch:
        patch.setattr(world.services.objects, "get", refuse_one)
        with pytest.raises(ObjectStoreUnavailable):
            world.sweep()
    jobs = world.services.jobs
    assert jobs.get(other.id).status == JobStatus.QUEUED
    assert not jobs.is_founded()
    assert world.sweep() == Swept(restored=1)
    assert jobs.get(unreadable.id).status == JobStatus.QUEUED


def test_what_the_store_will_not_remove_keeps_no_ledger_from_being_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of a right, say: that is its operator's to mend, and no job's loss."""
    world.finish(world.accept())
    world.wipe()
    world.advance(SETTINGS.image_retention_seconds + 1)
    waits = world.accept(record=False)
    world.advance(20)

    def refuse(key: str) -> None:
        raise ObjectStoreUnavailable("refused")

    monkeypatch.setattr(world.services.objects, "delete", refuse)
    assert world.sweep() == Swept(restored=1, refused=1)
    assert world.services.jobs.is_founded()
    assert world.services.jobs.get(waits.id).status == JobStatus.QUEUED


def test_the_image_of_a_job_that_had_ended_may_be_unreadable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome is whole: no more than its key is lost with it. A store that is away is another matter."""
    new, objects = world.accept(key="k"), world.services.objects
    world.finish(new)
    world.wipe()
    get = objects.get

    def refuse_the_image(key: str, max_bytes: int) -> bytes:
        if key == new.spec.input.key:
            raise ObjectStoreUnavailable("a bad sector")
        return get(key, max_bytes)

    def away() -> None:
        raise ObjectStoreUnavailable("away")

    monkeypatch.setattr(objects, "get", refuse_the_image)
    with monkeypatch.context() as patch:
        patch.setattr(objects, "ping", away)
        with pytest.raises(ObjectStoreUnavailable, match="away"):
            world.sweep()
    assert world.sweep() == Swept()
    assert world.services.jobs.is_founded()


def begin_batch(
    world: World, members: int, is_whole: bool = True, key: str = "batch", fingerprint: str = "f"
) -> tuple[NewBatch, list[NewJob]]:
    """Do what the API does with a batch."""
    batch = NewBatch(
        id=new_job_id(),
        owner="a",
        expires_in_seconds=HOUR,
        retention_seconds=600,
        tombstone_seconds=600,
        idempotency=Idempotency(key=key, fingerprint=fingerprint),
    )
    world.services.jobs.create_batch(batch)
    archive = BatchArchive(world.services.objects)
    archive.put(batch, world.now_ms)
    jobs = [world.accept(batch=batch.id) for _ in range(members)]
    archive.put_members(batch.id, [job.id for job in jobs])
    if is_whole:
        world.services.jobs.batch(batch.id, seal=True)
        archive.put_whole(batch.id)
    return batch, jobs


def test_a_batch_comes_back_with_every_member(world: World) -> None:
    """What had ended is told as before, what waits is run, and the key still finds it."""
    batch, jobs = begin_batch(world, 3)
    ended = world.finish(jobs[1])
    world.wipe()
    world.advance(20)
    assert world.sweep() == Swept(restored=2)
    ledger = world.services.jobs
    found = ledger.batch(batch.id)
    assert (found.counts[JobStatus.QUEUED], found.counts[JobStatus.SUCCEEDED], found.is_whole) == (2, 1, True)
    assert found.owner == "a"
    assert ledger.ended(batch.id, 0, 10) == [ended]
    for job in (jobs[0], jobs[2]):
        world.finish(job)
    assert ledger.batch(batch.id).completed_at_ms is not None
    assert ledger.create_batch(batch) == batch.id


def test_a_batch_that_waits_for_long_comes_back_too(world: World) -> None:
    """Nearly an hour later, when its members have little time left."""
    batch, jobs = begin_batch(world, 2)
    world.advance(0.9 * HOUR)
    world.wipe()
    assert world.sweep() == Swept(restored=2)
    assert sorted(world.services.jobs.members(batch.id, 0, 10)) == sorted(job.id for job in jobs)
    assert world.services.jobs.batch(batch.id).is_whole


def test_what_cannot_be_read_of_one_batch_keeps_no_other_from_coming_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the jobs, which are looked at after all batches."""
    batches = sorted(begin_batch(world, 1, key=key)[0].id for key in ("one", "other"))
    world.wipe()
    world.advance(20)
    get = world.services.objects.get

    def refuse_one(key: str, max_bytes: int) -> bytes:
        if batches[0] in key:
            raise ObjectStoreUnavailable("refused")
        return get(key, max_bytes)

    monkeypatch.setattr(world.services.objects, "get", refuse_one)
    with pytest.raises(ObjectStoreUnavailable):
        world.sweep()
    jobs = world.services.jobs
    assert jobs.batch(batches[1]).counts[JobStatus.QUEUED] == 1
    assert jobs.depth().open == 2
    assert not jobs.is_founded()


def test_an_outcome_that_cannot_be_read_keeps_no_other_member_from_coming_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred of them are named together."""
    batch, members = begin_batch(world, 2)
    for job in members:
        world.finish(job)
    world.wipe()
    get = world.services.objects.get

    def refuse_one(key: str, max_bytes: int) -> bytes:
        if key.endswith(f"{members[0].id}.json") and key.startswith(RESULTS):
            raise ObjectStoreUnavailable("refused")
        return get(key, max_bytes)

    monkeypatch.setattr(world.services.objects, "get", refuse_one)
    with pytest.raises(ObjectStoreUnavailable):
        world.sweep()
    assert world.services.jobs.batch(batch.id).counts[JobStatus.SUCCEEDED] == 1


@pytest.mark.parametrize("fingerprint", ["f", "another"])
def test_a_key_that_was_used_anew_keeps_no_batch_from_coming_back(world: World, fingerprint: str) -> None:
    """A ledger that lost its last writes had lost the first batch when the second one came."""
    begun = []
    for each in ("f", fingerprint):
        begun.append(begin_batch(world, 1, fingerprint=each)[0])
        world.wipe()
        world.services.jobs.found()
    world.wipe()
    world.advance(20)
    assert world.sweep() == Swept(restored=2)
    for batch in begun:
        assert world.services.jobs.batch(batch.id).counts[JobStatus.QUEUED] == 1


def test_a_key_comes_back_with_the_batch_that_has_it(world: World) -> None:
    """The ledger had forgotten the earlier ones; the object store keeps them for some days more."""
    for _ in range(5):
        begin_batch(world, 1)
        world.wipe()
        world.services.jobs.found()
    world.advance(1201)
    latest, _ = begin_batch(world, 1)
    world.wipe()
    assert world.sweep() is not None
    assert world.services.jobs.create_batch(latest) == latest.id


def test_a_batch_that_is_being_restored_is_not_completed_by_who_reads_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago it was begun: it has not all of its members yet."""
    batch, jobs = begin_batch(world, 3)
    for job in jobs:
        world.finish(job)
    BatchArchive(world.services.objects).put(batch, world.now_ms - 2 * HOUR * 1000)
    world.wipe()
    seen = []
    get = world.services.objects.get

    def while_it_is_read(key: str, max_bytes: int) -> bytes:
        if "members-" in key:
            seen.append(world.services.jobs.batch(batch.id))
        return get(key, max_bytes)

    monkeypatch.setattr(world.services.objects, "get", while_it_is_read)
    world.sweep()
    assert [(found.is_whole, found.completed_at_ms) for found in seen] == [(False, None)]
    found = world.services.jobs.batch(batch.id)
    assert (found.is_whole, found.counts[JobStatus.SUCCEEDED]) == (True, 3)
    assert found.completed_at_ms == world.now_ms


def lose_the_last_writes(world: World, batch: NewBatch, jobs: list[NewJob]) -> None:
    """Redis was replaced by a copy of it from before this batch."""
    ledger = world.services.jobs
    assert isinstance(ledger, MemoryJobStore)
    del ledger._batches[batch.id]
    del ledger._idempotency["batch"]
    for job in jobs:
        del ledger._records[job.id]


def test_a_batch_of_the_last_writes_comes_back_to_a_ledger_that_has_others(world: World) -> None:
    """As after a failover: with its members, its key and its end, beside what was not lost."""
    other, _ = begin_batch(world, 1, key="other")
    batch, jobs = begin_batch(world, 3)
    ended = world.finish(jobs[1])
    lose_the_last_writes(world, batch, jobs)
    world.advance(20)
    assert world.sweep() == Swept(restored=2)
    ledger = world.services.jobs
    found = ledger.batch(batch.id)
    assert (found.counts[JobStatus.QUEUED], found.counts[JobStatus.SUCCEEDED], found.is_whole) == (2, 1, True)
    assert ledger.ended(batch.id, 0, 10) == [ended]
    for job in (jobs[0], jobs[2]):
        world.finish(job)
    assert ledger.batch(batch.id).completed_at_ms is not None
    assert ledger.create_batch(batch) == batch.id
    assert ledger.batch(other.id).counts[JobStatus.QUEUED] == 1
    assert world.sweep() == Swept()


def test_a_batch_that_lost_some_of_its_members_gets_them_back(world: World) -> None:
    """The copy of Redis was made while it came in, with one of them."""
    batch, jobs = begin_batch(world, 3)
    for job in jobs:
        world.finish(job)
    ledger = world.services.jobs
    assert isinstance(ledger, MemoryJobStore)
    record = ledger._batches[batch.id]
    record.is_whole, record.completed_at_ms = False, None
    record.job_ids, record.ends = [jobs[0].id], [jobs[0].id]
    for job in jobs[1:]:
        del ledger._records[job.id]
    world.sweep()
    found = ledger.batch(batch.id)
    assert (found.counts[JobStatus.SUCCEEDED], found.is_whole) == (3, True)
    assert found.completed_at_ms is not None


def test_a_comparison_that_breaks_off_in_a_batch_is_made_good_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had begun the batch again, and taken in nothing of it."""
    batch, jobs = begin_batch(world, 3)
    for job in jobs:
        world.finish(job)
    lose_the_last_writes(world, batch, jobs)
    get = world.services.objects.get

    def away(key: str, max_bytes: int) -> bytes:
        if "members-" in key:
            raise ObjectStoreUnavailable("away")
        return get(key, max_bytes)

    with monkeypatch.context() as patch:
        patch.setattr(world.services.objects, "get", away)
        with pytest.raises(ObjectStoreUnavailable):
            world.sweep()
    world.sweep()
    found = world.services.jobs.batch(batch.id)
    assert (found.counts[JobStatus.SUCCEEDED], found.is_whole) == (3, True)


def test_a_batch_whose_time_is_over_is_not_begun_again(world: World) -> None:
    """The ledger does not know it, and has lost nothing."""
    batch, jobs = begin_batch(world, 1)
    world.finish(jobs[0])
    world.advance(batch.retention_seconds + batch.tombstone_seconds + 1)
    lose_the_last_writes(world, batch, jobs)  # as Redis drops what has expired
    world.sweep()
    with pytest.raises(BatchNotFound):
        world.services.jobs.batch(batch.id)


def test_a_batch_whose_results_are_gone_holds_up_no_comparison(world: World) -> None:
    """The ledger says so of it, and is asked for the next."""
    batch, jobs = begin_batch(world, 1)
    world.finish(jobs[0])
    world.advance(batch.retention_seconds + 1)
    new = world.accept(record=False)
    with pytest.raises(ResultExpired):
        world.services.jobs.batch(batch.id)
    assert world.sweep() == Swept(restored=1)
    assert world.services.jobs.get(new.id).status == JobStatus.QUEUED


def test_a_ledger_is_not_asked_for_every_batch_of_the_last_weeks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For those of the last day alone, once each."""
    asked: list[str] = []
    batch = world.services.jobs.batch
    begin_batch(world, 2, key="old")
    world.advance(86_400 + 1)
    new, _ = begin_batch(world, 2, key="new")
    monkeypatch.setattr(world.services.jobs, "batch", lambda known: asked.append(known) or batch(known))
    world.sweep()
    assert asked == [new.id]


def test_a_batch_that_was_still_coming_in_is_not_taken_for_whole(world: World) -> None:
    """Its request may be under way; in time it is whole by itself."""
    batch, jobs = begin_batch(world, 1, is_whole=False)
    world.finish(jobs[0])
    world.wipe()
    world.sweep()
    assert world.services.jobs.batch(batch.id).completed_at_ms is None
    world.advance(HOUR + 60)
    assert world.services.jobs.batch(batch.id).completed_at_ms is not None


def test_a_batch_whose_images_are_gone_comes_back_too(world: World) -> None:
    """Its results are kept longer: without any upload only a comparison makes the ledger whole."""
    batch, jobs = begin_batch(world, 1)
    ended = world.finish(jobs[0])
    world.services.objects.delete(jobs[0].spec.input.key)
    world.wipe()
    ledger = world.services.jobs
    with pytest.raises(LedgerRebuilding):
        founded(world.services, lambda: ledger.batch(batch.id))
    assert not ledger.is_founded()
    assert world.sweep() == Swept()
    assert ledger.ended(batch.id, 0, 10) == [ended]


def test_a_member_that_comes_back_keeps_its_times(world: World) -> None:
    """Its image goes when it was promised to; one whose result is past its own retention stays away."""
    settings = SETTINGS.model_copy(update={"image_retention_seconds": 60, "tombstone_seconds": 900})
    batch, (gone, kept) = begin_batch(world, 2)
    world.finish(gone)
    world.advance(590)
    world.finish(kept)
    world.advance(20)
    world.wipe()
    assert Sweep(world.services, settings, lambda: world.now_ms, world.advance).run() is not None
    ledger = world.services.jobs
    assert [job.id for job in ledger.ended(batch.id, 0, 10)] == [kept.id]
    assert ledger.cleanable(10) == []
    world.advance(41)
    assert [(item.job_id, item.image_key) for item in ledger.cleanable(10)] == [
        (kept.id, kept.spec.input.key)
    ]
    with pytest.raises(JobNotFound):
        ledger.get(gone.id)


def test_what_is_kept_and_not_understood_is_named(world: World) -> None:
    """A damaged disk: the job is run again, the batch is gone, and its operator has to hear of it."""
    batch, jobs = begin_batch(world, 2)
    for job in jobs:
        world.finish(job)
    (outcome, *_) = sorted(world.services.objects.list_keys(RESULTS))
    begun = f"batches/{batch.id}/batch.json"
    for key in (outcome, begun):
        world.services.objects.put(key, b"\0", "application/json")
    world.wipe()
    world.advance(20)
    with structlog.testing.capture_logs() as lines:
        assert world.sweep() == Swept(restored=1)
    events = {line["key"]: line["event"] for line in lines if line["log_level"] == "warning"}
    assert events == {outcome: "outcome_not_understood", begun: "batch_not_understood"}


def test_a_worker_whose_clock_is_ahead_removes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own time the result of a ledger that lost its data was past its retention, and gone for good."""
    job = world.accept()
    world.finish(job)
    world.wipe()
    monkeypatch.setattr(time, "time_ns", lambda: (world.now_ms + 60 * 86_400_000) * 1_000_000)
    assert Sweep(world.services, SETTINGS, sleep=world.advance).run() == Swept()
    assert world.services.jobs.get(job.id).status == JobStatus.SUCCEEDED


def test_what_broke_off_while_it_was_stored_is_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after: a request is at its end long before."""
    asked: list[float] = []
    monkeypatch.setattr(world.services.objects, "remove_partial", asked.append)
    world.sweep()
    assert asked == [3600]


def test_what_is_kept_of_a_batch_goes_when_its_time_is_over(world: World) -> None:
    """And a ledger that has lost nothing takes nothing in."""
    batch, jobs = begin_batch(world, 2)
    for job in jobs:
        world.finish(job)
    world.sweep()
    kept = world.services.objects.list_keys(f"batches/{batch.id}/")
    assert len(kept) == 3
    world.advance(SETTINGS.result_retention_seconds + SETTINGS.tombstone_seconds + LONGEST_WAIT_SECONDS - 1)
    world.sweep()
    assert world.services.objects.list_keys(f"batches/{batch.id}/") == kept
    world.advance(2)
    world.sweep()
    assert world.services.objects.list_keys("batches/") == []
