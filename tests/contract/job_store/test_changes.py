"""How whoever waits for a job hears of its changes."""

import redis

from shared import keys
from shared.job_store import Change, JobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import JobStatus
from tests.work import LEASE, Clock, accept, claim, reap, succeed


def test_a_change_is_told_to_who_listens(store: JobStore) -> None:
    """Waiting for a result needs no polling."""
    changes = store.changes()
    assert next(changes) is None
    job = accept(store)
    assert claim(store, job.id)
    store.cancel(job.id)
    heard = [change for change in (next(changes) for _ in range(4)) if change]
    assert heard == [Change(job.id, JobStatus.RUNNING), Change(job.id, JobStatus.CANCELED)]
    changes.close()  # type: ignore[attr-defined]  # both are generators


def test_the_notice_of_an_end_holds_the_job_as_it_ended(store: JobStore) -> None:
    """Who waits for it need not read it; a change in between holds nothing."""
    changes = store.changes()
    assert next(changes) is None
    job = accept(store)
    assert claim(store, job.id)
    assert succeed(store, job.id, {"class": "lung_n", "text": "ä b"}, timings_ms={"fetch": 1.5})
    running, ended = (change for change in (next(changes) for _ in range(2)) if change)
    assert running.ended is None
    assert ended.ended is not None
    assert ended.ended() == store.get(job.id)
    changes.close()  # type: ignore[attr-defined]


def test_a_notice_in_other_words_is_passed_over(limited_client: redis.Redis) -> None:
    """Another version's, during an upgrade: who waits looks for itself now and then."""
    changes = RedisJobStore(limited_client).changes()
    assert next(changes) is None
    for notice in ("an-id", "", "an-id soon"):
        limited_client.publish(keys.CHANGES, notice)
    limited_client.publish(keys.CHANGES, "an-id failed")
    heard = [next(changes) for _ in range(4)]
    assert heard == [None, None, None, Change("an-id", JobStatus.FAILED)]
    changes.close()  # type: ignore[attr-defined]


def test_every_version_of_a_job_is_a_new_one(store: JobStore, clock: Clock) -> None:
    """The ETag changes with each visible change."""
    job = accept(store)
    seen = [job.version]
    claim(store, job.id, "a")
    seen.append(store.get(job.id).version)
    store.release(job.id, "a", 0)
    seen.append(store.get(job.id).version)
    claim(store, job.id, "b")
    seen.append(store.get(job.id).version)
    clock.advance(LEASE + 1)
    reap(store)
    seen.append(store.get(job.id).version)
    store.cancel(job.id)
    seen.append(store.get(job.id).version)
    assert seen == sorted(set(seen))
