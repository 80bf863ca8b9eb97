"""Any order of calls and any lapse of time: the ledger's two sides agree, and its invariants hold."""

import secrets
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from shared import keys
from shared.deliveries import DeliveryState, Try, job_subject
from shared.deliveries_redis import RedisDeliveries
from shared.errors import HistoQueueError
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import Idempotency, Job, JobError, JobStatus, NewBatch, NewJob, Priority, wall_clock_ms
from tests.work import fail, new_job, succeed

# Both sides read one clock, which moves when a lapse says so.
LEASE, RUN, DEADLINE, IMAGE_RETENTION, RETENTION, HOLD = 15.5, 41.5, 90.5, 50.5, 300.5, 3.5
LAPSES = (1.3, 7.3, 16.3, 100.3)
TOKENS = ("a", "b", "c")
MOST_OPEN = 4
BATCH = NewBatch(
    id="batch-1", expires_in_seconds=DEADLINE, retention_seconds=RETENTION, tombstone_seconds=1e6
)
SPEC = new_job(webhook_url="https://receiver.example.org/").spec


class Ledgers(RuleBasedStateMachine):
    """Does the same to both sides, and remembers how every job ended."""

    client: ClassVar[redis.Redis]
    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        """Start empty."""
        self.client.flushall()
        self.now_ms = wall_clock_ms()
        self.memory = MemoryJobStore(lambda: self.now_ms)
        self.redis = RedisJobStore(self.client, lambda: self.now_ms)
        self.redis.found()
        self.deliveries = (self.memory.deliveries, RedisDeliveries(self.client, lambda: self.now_ms))
        for store in (self.memory, self.redis):
            store.create_batch(BATCH)
        self.ended: dict[str, tuple[Any, ...]] = {}
        self.known: list[str] = []

    def both(self, call: Callable[[Any], Any]) -> Any:
        """Make one call on each side; they must answer alike, also with their errors."""
        answers = []
        for store in (self.memory, self.redis):
            try:
                answers.append(call(store))
            except HistoQueueError as error:
                answers.append((type(error), str(error)))
        assert answers[0] == answers[1]
        return answers[0]

    @rule(
        target=ids,
        key=st.sampled_from([None, "k1", "k2"]),
        fingerprint=st.sampled_from("xy"),
        priority=st.sampled_from(Priority),
        batch=st.sampled_from([None, BATCH.id]),
    )
    def create(self, key: str | None, fingerprint: str, priority: Priority, batch: str | None) -> str:
        """Accept a job, a repetition, or refuse one too many."""
        new = NewJob(
            id=f"job-{secrets.token_hex(4)}",
            spec=SPEC.model_copy(update={"priority": priority, "batch": batch}),
            expires_in_seconds=DEADLINE,
            image_retention_seconds=IMAGE_RETENTION,
            retention_seconds=RETENTION,
            tombstone_seconds=1e6,
            idempotency=Idempotency(key=key, fingerprint=fingerprint) if key else None,
        )

        def outcome(store: Any) -> tuple[str, str, bool]:
            created = store.create(new, MOST_OPEN)
            return created.job.id, created.job.status, created.replayed

        answer = self.both(outcome)
        if answer[0] == new.id:
            self.known.append(new.id)
        return new.id

    @rule(job=ids, token=st.sampled_from(TOKENS))
    def claim(self, job: str, token: str) -> None:
        """A message is delivered, perhaps twice."""
        self.both(lambda store: _view(store.claim_all({job: token}, LEASE, RUN).get(job)))

    @rule(job=ids, token=st.sampled_from(TOKENS))
    def renew(self, job: str, token: str) -> None:
        """A worker says that it lives."""
        self.both(lambda store: store.renew(job, token, LEASE))

    @rule(job=ids, token=st.sampled_from(TOKENS))
    def succeed(self, job: str, token: str) -> None:
        """A worker has a result."""
        self.both(lambda store: succeed(store, job, {"by": token}, token))

    @rule(job=ids, token=st.sampled_from(TOKENS))
    def fail(self, job: str, token: str) -> None:
        """A worker has an error."""
        self.both(lambda store: fail(store, job, JobError(code="C", detail=token), token))

    @rule(job=ids, token=st.sampled_from(TOKENS))
    def release(self, job: str, token: str) -> None:
        """A worker hands a job back."""
        self.both(lambda store: store.release(job, token, HOLD))

    @rule(job=ids, token=st.sampled_from(TOKENS), strikes=st.integers(1, 2))
    def strike(self, job: str, token: str, strikes: int) -> None:
        """An engine died."""
        self.both(lambda store: store.strike(job, token, strikes))

    @rule(job=ids)
    def cancel(self, job: str) -> None:
        """The owner ends it."""
        self.both(lambda store: (store.cancel(job)).was_running)

    @rule(job=ids)
    def delete(self, job: str) -> None:
        """The owner wants nothing of it kept."""
        self.both(lambda store: store.delete(job))

    @rule(job=ids)
    def retry(self, job: str) -> None:
        """The owner wants it run once more, from the beginning."""
        answer = self.both(lambda store: _view(store.retry(job, MOST_OPEN)))
        if answer[0] == job:
            self.ended.pop(job, None)

    @rule(are_kept=st.booleans())
    def archive(self, are_kept: bool) -> None:
        """A worker puts outcomes into the object store, or dies over it."""
        taken: list[list[Job]] = []

        def take(store: Any) -> list[tuple[Any, ...] | None]:
            taken.append(sorted(store.unarchived(100), key=lambda job: job.id))
            return [_view(job) for job in taken[-1]]

        self.both(take)
        if are_kept:
            self.both(lambda store: sorted(store.archived(taken[0])))

    @rule()
    def seal(self) -> None:
        """The batch gets no more members, as far as its submitter knows."""
        self.both(lambda store: store.batch(BATCH.id, seal=True))

    @rule(job=ids)
    def read(self, job: str) -> None:
        """A client asks."""
        self.both(lambda store: _view(store.get(job)))

    @rule(messages_are_gone=st.booleans())
    def reap(self, messages_are_gone: bool) -> None:
        """A reaper looks; either the queue is empty, or its head is as old as can be."""
        oldest = None if messages_are_gone else 0
        heads = dict.fromkeys(Priority, oldest)
        due = self.both(lambda store: sorted(store.due(heads, 100)))
        self.both(lambda store: sorted(store.reap(due, heads)))

    @rule(state=st.sampled_from(DeliveryState), at_most=st.integers(1, 3))
    def deliver(self, state: DeliveryState, at_most: int) -> None:
        """Some of the events are told, with this outcome; which of one moment come first is left open."""
        taken = [side.take(100, 100, HOLD) for side in self.deliveries]
        assert sorted(item.delivery_id for item in taken[0]) == sorted(item.delivery_id for item in taken[1])
        for item in sorted(taken[0], key=lambda item: item.delivery_id)[:at_most]:
            claimed = [side.claim(item, "t", LEASE) for side in self.deliveries]
            assert claimed[0] == claimed[1]
            made = Try(at_ms=self.now_ms, status=200, duration_ms=1)
            settled = [side.settle(item.delivery_id, "t", state, made, 30.5) for side in self.deliveries]
            assert settled[0] == settled[1]

    @rule(job=ids)
    def redeliver(self, job: str) -> None:
        """The owner wants an event told once more."""
        again = [side.redeliver(job_subject(job)) for side in self.deliveries]
        assert again[0] == again[1]

    @rule()
    def clean(self) -> None:
        """A reaper drops what is past its retention."""
        items = self.both(lambda store: sorted(store.cleanable(100), key=lambda item: item.job_id))
        for item in items:
            self.both(lambda store, item=item: store.cleaned(item))

    @rule(seconds=st.sampled_from(LAPSES))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_ms += int(seconds * 1000)

    @invariant()
    def the_counts_agree(self) -> None:
        """The two sides have the same work open."""
        totals = [store.totals() for store in (self.memory, self.redis)]
        assert totals[0] == totals[1]
        assert totals[0].accepted + totals[0].retried == totals[0].open + sum(totals[0].ended.values())
        depths = [store.depth() for store in (self.memory, self.redis)]
        assert (depths[0].open, depths[0].running) == (depths[1].open, depths[1].running)
        queued = [{name: item.queued for name, item in depth.waiting.items()} for depth in depths]
        assert queued[0] == queued[1]

    @invariant()
    def the_deliveries_agree(self) -> None:
        """Each job's on both sides, and every end of a job that was not forgotten is among them."""
        for job in self.known:
            of = [side.of(job_subject(job)) for side in self.deliveries]
            assert of[0] == of[1]
            assert len({side.is_off(job_subject(job)) for side in self.deliveries}) == 1
        totals = [side.totals() for side in self.deliveries]
        assert totals[0] == totals[1]

    @invariant()
    def the_batch_agrees(self) -> None:
        """Its counts, its reasons, its members and the order of their ends; also where it has expired."""
        self.both(lambda store: store.batch(BATCH.id))
        self.both(lambda store: store.members(BATCH.id, 0, 1000))
        self.both(lambda store: [_view(job) for job in store.ended(BATCH.id, 0, 1000)])

    @invariant()
    def an_open_job_is_in_each_index_that_it_belongs_to(self) -> None:
        """Open means in OPEN and in exactly one of both PUBLISHED and LEASED; ended means in none."""
        open_, interactive, bulk, leased = (
            set(self.client.zrange(name, 0, -1))
            for name in (keys.OPEN, keys.PUBLISHED, keys.PUBLISHED_BULK, keys.LEASED)
        )
        assert interactive | bulk | leased == open_
        assert len(interactive) + len(bulk) + len(leased) == len(open_)
        for job in self.known:
            status = JobStatus(str(self.client.hget(keys.JOB + job, "status")))
            assert (job in open_) is not status.is_final

    @invariant()
    def what_has_ended_never_changes(self) -> None:
        """The first final write wins, for good."""
        for job in self.known:
            record = self.client.hgetall(keys.JOB + job)
            if JobStatus(record["status"]).is_final:
                dropped = self.client.zscore(keys.ENDED, job) is None
                dropped = dropped or "deleted" in record
                told = ("", "") if dropped else (record.get("result"), record.get("error"))
                seen = (record["status"], *told, record["version"])
                before = self.ended.setdefault(job, seen)
                forgotten = (before[0], "", "", record["version"])
                assert seen == before or (seen == forgotten and (dropped or seen[3] == before[3]))
                self.ended[job] = seen


def _view(job: Any) -> tuple[Any, ...] | None:
    """Return all of a job but its times, which are a moment apart."""
    if job is None:
        return None
    error = job.error.code if job.error else None
    return job.id, job.status, job.version, job.attempt, job.lost, job.strikes, job.result, error


@pytest.mark.integration
def test_the_two_ledgers_agree_whatever_happens(redis_client: redis.Redis) -> None:
    """Random walks through the state machine with a clock that the walk moves."""
    Ledgers.client = redis_client
    run_state_machine_as_test(
        Ledgers,
        settings=settings(
            max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
