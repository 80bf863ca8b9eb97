"""What a ledger is taken for that is empty: new, or without its data."""

from typing import Any

import pytest

from shared.archive import Archive
from shared.errors import JobNotFound, LedgerRebuilding
from shared.founding import found_if_empty, founded, remembered
from shared.schemas import Idempotency, new_job_id
from tests.unit.shared.conftest import SETTINGS, World


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
    found_if_empty(world.services)
    assert not world.services.jobs.is_founded()
