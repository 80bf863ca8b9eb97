"""Batches of a ledger that lost its data, beside an object store that did not."""

import pytest
import structlog

from shared.archive import RESULTS, result_key
from shared.batch_archive import BatchArchive
from shared.errors import BatchNotFound, JobNotFound, LedgerRebuilding, ObjectStoreUnavailable, ResultExpired
from shared.founding import founded
from shared.job_store_memory import MemoryJobStore
from shared.schemas import JobStatus, NewBatch, NewJob
from shared.sweep import LONGEST_WAIT_SECONDS, Sweep, Swept
from tests.unit.shared.conftest import HOUR, SETTINGS, World
from tests.work import refusing


def test_a_batch_comes_back_with_every_member(world: World) -> None:
    """What had ended is told as before, what waits is run, and the key still finds it."""
    batch, jobs = world.begin_batch(3)
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
    batch, jobs = world.begin_batch(2)
    world.advance(0.9 * HOUR)
    world.wipe()
    assert world.sweep() == Swept(restored=2)
    assert sorted(world.services.jobs.members(batch.id, 0, 10)) == sorted(job.id for job in jobs)
    assert world.services.jobs.batch(batch.id).is_whole


def test_what_cannot_be_read_of_one_batch_keeps_no_other_from_coming_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the jobs, which are looked at after all batches."""
    batches = sorted(world.begin_batch(1, key=key)[0].id for key in ("one", "other"))
    world.wipe()
    world.advance(20)
    objects = world.services.objects
    monkeypatch.setattr(objects, "get", refusing(objects.get, batches[0]))
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
    batch, members = world.begin_batch(2)
    for job in members:
        world.finish(job)
    world.wipe()
    objects = world.services.objects
    monkeypatch.setattr(objects, "get", refusing(objects.get, result_key(members[0].id)))
    with pytest.raises(ObjectStoreUnavailable):
        world.sweep()
    assert world.services.jobs.batch(batch.id).counts[JobStatus.SUCCEEDED] == 1


@pytest.mark.parametrize("fingerprint", ["f", "another"])
def test_a_key_that_was_used_anew_keeps_no_batch_from_coming_back(world: World, fingerprint: str) -> None:
    """A ledger that lost its last writes had lost the first batch when the second one came."""
    begun = []
    for each in ("f", fingerprint):
        begun.append(world.begin_batch(1, fingerprint=each)[0])
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
        world.begin_batch(1)
        world.wipe()
        world.services.jobs.found()
    world.advance(1201)
    latest, _ = world.begin_batch(1)
    world.wipe()
    assert world.sweep() is not None
    assert world.services.jobs.create_batch(latest) == latest.id


def test_a_batch_that_is_being_restored_is_not_completed_by_who_reads_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago it was begun: it has not all of its members yet."""
    batch, jobs = world.begin_batch(3)
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
    other, _ = world.begin_batch(1, key="other")
    batch, jobs = world.begin_batch(3)
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
    batch, jobs = world.begin_batch(3)
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
    batch, jobs = world.begin_batch(3)
    for job in jobs:
        world.finish(job)
    lose_the_last_writes(world, batch, jobs)
    objects = world.services.objects
    with monkeypatch.context() as patch:
        patch.setattr(objects, "get", refusing(objects.get, "members-"))
        with pytest.raises(ObjectStoreUnavailable):
            world.sweep()
    world.sweep()
    found = world.services.jobs.batch(batch.id)
    assert (found.counts[JobStatus.SUCCEEDED], found.is_whole) == (3, True)


def test_a_batch_whose_time_is_over_is_not_begun_again(world: World) -> None:
    """The ledger does not know it, and has lost nothing."""
    batch, jobs = world.begin_batch(1)
    world.finish(jobs[0])
    world.advance(batch.retention_seconds + batch.tombstone_seconds + 1)
    lose_the_last_writes(world, batch, jobs)  # as Redis drops what has expired
    world.sweep()
    with pytest.raises(BatchNotFound):
        world.services.jobs.batch(batch.id)


def test_a_batch_whose_results_are_gone_holds_up_no_comparison(world: World) -> None:
    """The ledger says so of it, and is asked for the next."""
    batch, jobs = world.begin_batch(1)
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
    world.begin_batch(2, key="old")
    world.advance(86_400 + 1)
    new, _ = world.begin_batch(2, key="new")
    monkeypatch.setattr(world.services.jobs, "batch", lambda known: asked.append(known) or batch(known))
    world.sweep()
    assert asked == [new.id]


def test_a_batch_that_was_still_coming_in_is_not_taken_for_whole(world: World) -> None:
    """Its request may be under way; in time it is whole by itself."""
    batch, jobs = world.begin_batch(1, is_whole=False)
    world.finish(jobs[0])
    world.wipe()
    world.sweep()
    assert world.services.jobs.batch(batch.id).completed_at_ms is None
    world.advance(HOUR + 60)
    assert world.services.jobs.batch(batch.id).completed_at_ms is not None


def test_a_batch_whose_images_are_gone_comes_back_too(world: World) -> None:
    """Its results are kept longer: without any upload only a comparison makes the ledger whole."""
    batch, jobs = world.begin_batch(1)
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
    batch, (gone, kept) = world.begin_batch(2)
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
    batch, jobs = world.begin_batch(2)
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


def test_what_is_kept_of_a_batch_goes_when_its_time_is_over(world: World) -> None:
    """And a ledger that has lost nothing takes nothing in."""
    batch, jobs = world.begin_batch(2)
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


def test_what_is_kept_of_a_batch_outlasts_the_longest_wait_of_a_member(world: World) -> None:
    """However long an operator lets jobs wait: Redis may lose its data meanwhile."""
    month = 30 * 86_400
    settings = SETTINGS.model_copy(update={"job_expires_seconds": month})
    batch, _ = world.begin_batch(1)
    world.advance(month)
    Sweep(world.services, settings, lambda: world.now_ms, world.advance).run()
    assert len(world.services.objects.list_keys(f"batches/{batch.id}/")) == 3
