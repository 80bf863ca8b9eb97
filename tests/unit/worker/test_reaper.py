"""What is published again, deleted and archived, all in memory."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.archive import Archive
from shared.errors import ObjectStoreUnavailable
from tests.factories import png_bytes
from tests.unit.worker.conftest import World
from tests.work import claim, refusing, succeed
from worker.reaper import MOST_FAILED, archive_once, clean_once, reap_once


def test_an_image_is_deleted_when_its_time_is_over(world: World) -> None:
    """Not before, and nothing but the image: the result is still there."""
    job_id = world.accept(b"tile")
    world.runner.run(job_id)
    assert world.clean() == 0
    world.now_ms += 61_000
    assert world.clean() == 1
    assert world.services.objects.list_keys("uploads/") == []
    assert world.job(job_id).result == {"text": "tile"}


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
        assert world.clean() == 0
    world.now_ms += 61_000
    assert world.clean() == 1
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
        world.clean()
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
    assert world.clean() == 0
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
    assert world.clean() == 2
    assert sorted(objects.list_keys("uploads/")) == sorted(map(world.key, refused))


def test_a_message_that_was_lost_is_published_again(world: World) -> None:
    """It left the queue and reached nobody."""
    job_id = world.accept(b"tile")
    world.services.queue.messages.clear()  # type: ignore[attr-defined]
    assert reap_once(world.services.jobs, world.services.queue) == 0
    world.now_ms += 4_000
    assert reap_once(world.services.jobs, world.services.queue) == 1
    assert [item for item, _ in world.services.queue.messages] == [job_id]  # type: ignore[attr-defined]


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
        Archive(objects).put_heatmap(job_id, png_bytes())
        archive_once(jobs, objects, pool)
        return unwanted

    monkeypatch.setattr(jobs, "archived", runs_meanwhile)
    with ThreadPoolExecutor(1) as pool:
        archive_once(jobs, objects, pool)
        world.now_ms += 31_000
        archive_once(jobs, objects, pool)
    assert Archive(objects).get(job_id) == jobs.get(job_id)
    assert Archive(objects).get_heatmap(job_id) == png_bytes()


def test_an_outcome_past_its_retention_goes_from_the_object_store_too(world: World) -> None:
    """Image first, then the outcome, both copies of it."""
    job_id = world.accept(b"tile")
    world.runner.run(job_id)
    with ThreadPoolExecutor(1) as pool:
        archive_once(world.services.jobs, world.services.objects, pool)
    for seconds, left in ((61, ["results/"]), (601, [])):
        world.now_ms += seconds * 1000
        world.clean()
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
    world.clean()
    assert world.services.objects.list_keys("") == []
