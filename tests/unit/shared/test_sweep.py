"""A ledger that lost its data, beside an object store that did not."""

import threading
import time

import pytest
from structlog.testing import capture_logs

from shared.archive import HEATMAPS, QUARANTINE, RESULTS, Archive
from shared.envelope import UPLOADS
from shared.errors import ObjectStoreUnavailable
from shared.schemas import Idempotency, JobStatus, new_job_id
from shared.sweep import IN_FLIGHT_SECONDS, SILENCE_SECONDS, Sweep, Swept, sweep_when_due
from tests.unit.shared.conftest import HOUR, SETTINGS, World
from tests.work import refusing

#: Where something of a job may lie.
KEPT = (UPLOADS, HEATMAPS, RESULTS, QUARANTINE)


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


def test_a_long_comparison_says_how_far_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has ended, requests are refused: whoever waits sees that it goes on. A short one is silent."""
    for _ in range(3):
        world.accept()
    for new in world.begin_batch(3)[1]:
        world.finish(new)
    get = world.services.objects.get

    def slow(key: str, max_bytes: int) -> bytes:
        if key.startswith((UPLOADS, RESULTS)):
            world.advance(6)
        return get(key, max_bytes)

    world.advance(60)
    said = []
    for read in (slow, get):
        monkeypatch.setattr(world.services.objects, "get", read)
        world.wipe()
        with capture_logs() as lines:
            assert world.sweep() == Swept(restored=3)
        said.append([line["looked_at"] for line in lines if line["event"] == "sweeping"])
    # The members that have ended, which are taken in first, and the uploads of the others.
    assert said[0] == sorted(said[0])
    assert {1, 2, 6} <= set(said[0])
    assert said[1] == []


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


def test_one_that_seems_to_come_from_the_future_is_taken_in_too(world: World) -> None:
    """The ledger's clock was set back since: no comparison may be made whole without it."""
    new = world.accept(record=False)
    world.advance(-HOUR)
    assert world.sweep() == Swept(restored=1)
    assert world.services.jobs.get(new.id).status == JobStatus.QUEUED


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
        _, jobs = world.begin_batch(1, key=str(number))
        world.finish(jobs[0])
        world.services.objects.delete(jobs[0].spec.input.key)
        world.accept(record=False)
    world.advance(60)
    world.wipe()
    get = world.services.objects.get

    def get_slowly(key: str, max_bytes: int) -> bytes:
        world.advance(SILENCE_SECONDS * 0.45)
        return get(key, max_bytes)

    monkeypatch.setattr("shared.sweep._AT_ONCE", 1)
    monkeypatch.setattr("shared.sweep._READERS", 1)
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
    objects = world.services.objects
    with monkeypatch.context() as patch:
        patch.setattr(objects, "get", refusing(objects.get, unreadable.spec.input.key))
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
