"""A job that takes over another one's result, held against the Redis ledger and the one in memory."""

from typing import Any

import pytest

from shared.errors import IdempotencyKeyReused
from shared.job_store import JobStore
from shared.schemas import Idempotency, JobSpec, JobStatus, NewBatch, NewJob, new_job_id
from tests import work
from tests.work import Clock, new_job

RESULT = {"class": "lung_aca", "confidence": 0.97}


def succeed(store: JobStore, new: NewJob, may_answer: bool = True) -> None:
    """Accept a job and do a worker's work."""
    store.create(new, max_open=10)
    assert work.claim(store, new.id)
    assert work.succeed(store, new.id, RESULT, answer_key=new.spec.answer_key if may_answer else None)


def key_of(new: NewJob) -> str:
    """Return what a job is looked up by."""
    assert new.spec.answer_key
    return new.spec.answer_key


def test_an_answer_is_found_once_there_is_one(store: JobStore) -> None:
    """Not while its job is open, and never where its worker did not say so."""
    first = new_job()
    assert store.admission(None, key_of(first)).answered_by is None
    succeed(store, first, may_answer=False)
    assert store.admission(None, key_of(first)).answered_by is None
    second = new_job()
    succeed(store, second)
    assert store.admission(None, key_of(first)).answered_by == second.id


def test_an_answered_job_has_ended_with_the_same_result(store: JobStore, clock: Clock) -> None:
    """Under its own id, with a retention of its own, and no worker ever gets it."""
    first = new_job()
    succeed(store, first)
    clock.advance(300)
    second = new_job()
    created = store.answer(second, first.id)
    assert created is not None
    job = created.job
    assert job == store.get(second.id)
    assert (job.id, job.status, job.result, job.cached) == (second.id, JobStatus.SUCCEEDED, RESULT, True)
    assert (job.attempt, job.started_at_ms, job.spec.custom_id) == (0, None, "Grüße")
    assert job.expires_at_ms == clock.now_ms + 600_000
    assert work.claim(store, second.id) is None
    assert [item.id for item in store.unarchived(10)] == [first.id, second.id]
    assert not store.get(first.id).cached


def test_it_takes_nobodys_place_and_every_count_adds_up(store: JobStore) -> None:
    """It is accepted and has succeeded; it says nothing of how fast the workers are."""
    first = new_job()
    succeed(store, first)
    rate = store.drain_rate()
    assert rate > 0
    for _ in range(50):
        assert store.answer(new_job(), first.id)
    assert store.depth().open == 0
    assert store.drain_rate() == rate
    totals = store.totals()
    assert (totals.accepted, totals.open, totals.ended[JobStatus.SUCCEEDED]) == (51, 0, 51)


@pytest.mark.parametrize("gone", ["deleted", "dropped", "never there"])
def test_a_result_that_is_gone_answers_nothing(store: JobStore, clock: Clock, gone: str) -> None:
    """The caller is told to go the whole way, and no record is left of the attempt."""
    first, second = new_job(), new_job()
    if gone != "never there":
        succeed(store, first)
    if gone == "deleted":
        store.delete(first.id)
    if gone == "dropped":
        clock.advance(700)
        for _ in range(2):
            for item in store.cleanable(10):
                store.cleaned(item)
    assert store.answer(second, first.id) is None
    assert store.unknown([second.id]) == [second.id]


def test_a_repeated_request_gets_the_job_that_was_answered_first(store: JobStore) -> None:
    """An idempotency key counts before the cache does, and with another request it is refused."""
    first = new_job()
    succeed(store, first)
    key = Idempotency(key="k", fingerprint="f")
    answered = store.answer(new_job(idempotency=key), first.id)
    again = store.answer(new_job(idempotency=key), first.id)
    assert answered is not None
    assert again is not None
    assert (again.job.id, again.replayed) == (answered.job.id, True)
    with pytest.raises(IdempotencyKeyReused):
        store.answer(new_job(idempotency=Idempotency(key="k", fingerprint="g")), first.id)


def test_many_keys_are_looked_up_at_once(store: JobStore) -> None:
    """In the order of the keys; of what is not there, nothing."""
    first, second = new_job(), new_job()
    second = second.model_copy(update={"spec": second.spec.model_copy(update={"owner": "another"})})
    succeed(store, first)
    succeed(store, second)
    keys = [key_of(second), "0" * 32, key_of(first)]
    assert store.answered_by(keys) == [second.id, None, first.id]


def test_members_of_a_batch_end_with_the_answers_that_there_are(store: JobStore) -> None:
    """Where an answer is gone by then there is no job; the batch counts and lists the others."""
    first = new_job()
    succeed(store, first)
    batch_id = store.create_batch(
        NewBatch(id=new_job_id(), expires_in_seconds=3600, retention_seconds=600, tombstone_seconds=600)
    )
    news = [
        new.model_copy(update={"spec": new.spec.model_copy(update={"batch": batch_id})})
        for new in (new_job() for _ in range(3))
    ]
    made = store.answer_many(news, [first.id, new_job_id(), first.id])
    assert [job and (job.id, job.status, job.result, job.cached) for job in made] == [
        (news[0].id, JobStatus.SUCCEEDED, RESULT, True),
        None,
        (news[2].id, JobStatus.SUCCEEDED, RESULT, True),
    ]
    batch = store.batch(batch_id, seal=True)
    assert (batch.counts[JobStatus.SUCCEEDED], sum(batch.counts.values())) == (2, 2)
    assert batch.completed_at_ms is not None
    assert [job.id for job in store.ended(batch_id, 0, 10)] == [news[0].id, news[2].id]
    assert store.unknown([new.id for new in news]) == [news[1].id]


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "another"},
        {"model": {"name": "lung-cnn", "version": "1.0.1", "sha256": "0" * 64}},
        {"input": {"sha256": "2" * 64}},
        {"input": {"mpp": 0.5}},
    ],
)
def test_what_may_change_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    """Another owner, model, image or scale; a name of the caller's own does not."""
    spec = new_job().spec.model_dump()
    for name, value in change.items():
        spec[name] = {**spec[name], **value} if isinstance(value, dict) else value
    assert JobSpec.model_validate(spec).answer_key != new_job().spec.answer_key
    assert new_job().spec.model_copy(update={"custom_id": "x"}).answer_key == new_job().spec.answer_key


def test_a_heat_map_is_never_taken_from_another_job() -> None:
    """It lies under its own job's name."""
    assert new_job().spec.model_copy(update={"explain": True}).answer_key is None
