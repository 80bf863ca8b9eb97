"""What is told to webhooks, held against the Redis side and the one in memory."""

from dataclasses import dataclass

import pytest
import redis

from shared import keys
from shared.deliveries import Deliveries, DeliveryState, Taken, Try, batch_subject, job_subject
from shared.deliveries_redis import UNREADABLE_HOLD_SECONDS, RedisDeliveries
from shared.errors import JobAlreadyFinal
from shared.job_store import JobStore
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import (
    Batch,
    JobError,
    JobStatus,
    NewBatch,
    NewJob,
    new_job_id,
    wall_clock_ms,
)
from tests.work import claim, fail, new_job, succeed

URL = "https://Receiver.example.org:8443/hook?a=1"
HOST = "receiver.example.org:8443"
PLACES, HOLD, LEASE = 4, 60.0, 30.0
OK = Try(at_ms=1, status=200, duration_ms=5)
REFUSED = Try(at_ms=1, status=500, error="http_500", duration_ms=5)


@dataclass
class Ledger:
    """One side: jobs, their deliveries, and the time of both."""

    jobs: JobStore
    deliveries: Deliveries
    now_ms: int

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += int(seconds * 1000)

    def new_job(self, url: str | None) -> NewJob:
        """Return what a job is accepted with."""
        return new_job(expires_in=600, retention=3600, webhook_url=url)

    def job(self, url: str | None = URL) -> str:
        """Return a queued job."""
        new = self.new_job(url)
        self.jobs.create(new, 1000)
        return new.id

    def succeeded(self, url: str | None = URL) -> str:
        """Return a job that has a result."""
        job_id = self.job(url)
        claim(self.jobs, job_id)
        assert succeed(self.jobs, job_id, {"class": "lung_n"}, timings_ms={"fetch": 1.5})
        return job_id

    def take(self) -> list[Taken]:
        """Return what is to be delivered now."""
        return self.deliveries.take(PLACES, PLACES, HOLD)

    def settle(self, state: DeliveryState, made: Try = REFUSED, retry: float = 0) -> str:
        """Make one attempt that ends so; return the delivery's id."""
        (taken,) = self.take()
        assert self.deliveries.claim(taken, "t", LEASE)
        assert self.deliveries.settle(taken.delivery_id, "t", state, made, retry)
        return taken.delivery_id


def memory_ledger() -> Ledger:
    """Return the side for tests, empty."""
    jobs = MemoryJobStore(lambda: made.now_ms)
    made = Ledger(jobs, jobs.deliveries, wall_clock_ms())
    return made


def redis_ledger(client: redis.Redis) -> Ledger:
    """Return the real side, empty."""
    jobs = RedisJobStore(client, lambda: made.now_ms)
    made = Ledger(jobs, RedisDeliveries(client, lambda: made.now_ms), wall_clock_ms())
    jobs.found()
    return made


@pytest.fixture(params=["memory", "redis"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """Each side, empty; the real one with the shipped rights."""
    if request.param == "memory":
        return memory_ledger()
    return redis_ledger(request.getfixturevalue("limited_client"))


def end(ledger: Ledger, how: str) -> str:
    """Return a job that ended so."""
    if how == "succeeded":
        return ledger.succeeded()
    job_id = ledger.job()
    if how == "canceled":
        ledger.jobs.cancel(job_id)
    elif how == "expired":
        ledger.advance(601)
        ledger.jobs.get(job_id)
    else:
        claim(ledger.jobs, job_id)
        fail(ledger.jobs, job_id, JobError(code="INVALID_IMAGE", detail="broken"))
    return job_id


@pytest.mark.parametrize("how", ["succeeded", "failed", "canceled", "expired"])
def test_every_end_of_a_job_is_announced_once_with_the_job_as_it_is(ledger: Ledger, how: str) -> None:
    """In the same call that ends it."""
    job_id = end(ledger, how)
    (delivery,) = ledger.deliveries.of(job_subject(job_id))
    assert (delivery.event, delivery.url, delivery.host) == (f"job.{how}", URL, HOST)
    assert delivery.about == ledger.jobs.get(job_id)
    assert (delivery.state, delivery.attempt, delivery.tries) == (DeliveryState.PENDING, 0, ())
    assert delivery.due_ms == delivery.since_ms == delivery.announced_at_ms == ledger.now_ms
    assert delivery.id.startswith(job_id)
    assert "." not in delivery.id
    assert ledger.take() == [Taken(delivery.id, HOST)]
    assert ledger.take() == []


def test_a_job_that_is_answered_at_once_is_announced(ledger: Ledger) -> None:
    """By another's result, in the call that accepts it."""
    other = ledger.succeeded(url=None)
    created = ledger.jobs.answer(ledger.new_job(URL), other)
    assert created is not None
    (delivery,) = ledger.deliveries.of(job_subject(created.job.id))
    assert (delivery.event, delivery.about) == ("job.succeeded", created.job)
    assert delivery.about.cached


def test_an_end_that_is_written_twice_is_announced_once(ledger: Ledger) -> None:
    """The worker repeats it where the first answer was lost; somebody else's comes too late."""
    job_id = ledger.succeeded()
    assert succeed(ledger.jobs, job_id, {"class": "lung_n"}, timings_ms={"fetch": 1.5})
    assert not fail(ledger.jobs, job_id, JobError(code="MODEL_ERROR", detail="late"), "other")
    with pytest.raises(JobAlreadyFinal):
        ledger.jobs.cancel(job_id)
    assert len(ledger.deliveries.of(job_subject(job_id))) == 1


def test_a_job_without_a_webhook_announces_nothing(ledger: Ledger) -> None:
    """Nobody asked."""
    job_id = ledger.succeeded(url=None)
    assert ledger.deliveries.of(job_subject(job_id)) == []
    assert ledger.take() == []
    assert ledger.deliveries.totals().pending == 0


def test_an_open_job_announces_nothing(ledger: Ledger) -> None:
    """Only its end is told."""
    job_id = ledger.job()
    claim(ledger.jobs, job_id)
    ledger.jobs.release(job_id, "token", 0)
    assert ledger.take() == []


def test_a_delivery_is_claimed_by_one_and_its_attempt_counted(ledger: Ledger) -> None:
    """A message that came twice sends nothing twice; an answer that was lost is given again."""
    ledger.succeeded()
    (taken,) = ledger.take()
    first = ledger.deliveries.claim(taken, "a", LEASE)
    assert first is not None
    assert (first.attempt, first.started_at_ms) == (1, ledger.now_ms)
    assert ledger.deliveries.claim(taken, "b", LEASE) is None
    assert ledger.deliveries.claim(taken, "a", LEASE) == first
    assert not ledger.deliveries.settle(taken.delivery_id, "b", DeliveryState.DELIVERED, OK)
    assert ledger.deliveries.settle(taken.delivery_id, "a", DeliveryState.DELIVERED, OK)
    assert not ledger.deliveries.settle(taken.delivery_id, "a", DeliveryState.DELIVERED, OK)
    assert ledger.deliveries.claim(taken, "c", LEASE) is None
    totals = ledger.deliveries.totals()
    assert (totals.pending, totals.oldest_pending_at_ms) == (0, None)
    assert totals.ended == {"delivered": 1, "failed": 0, "disabled": 0}
    assert totals.attempts == {"accepted": 1, "refused": 0}


def test_a_lost_message_is_given_out_again(ledger: Ledger) -> None:
    """After its hold, and not before."""
    ledger.succeeded()
    (taken,) = ledger.take()
    ledger.advance(HOLD - 1)
    assert ledger.take() == []
    ledger.advance(2)
    assert ledger.take() == [taken]


def test_a_lost_sender_is_replaced_after_its_lease(ledger: Ledger) -> None:
    """It may have sent what it had: the receiver knows it by its id."""
    ledger.succeeded()
    (taken,) = ledger.take()
    assert ledger.deliveries.claim(taken, "dead", LEASE)
    ledger.advance(LEASE + 1)
    assert ledger.take() == [taken]
    again = ledger.deliveries.claim(taken, "b", LEASE)
    assert again is not None
    assert (again.id, again.attempt) == (taken.delivery_id, 2)
    assert not ledger.deliveries.settle(taken.delivery_id, "dead", DeliveryState.DELIVERED, OK)


def test_a_refused_delivery_comes_again_in_its_time(ledger: Ledger) -> None:
    """With its id, and what became of the attempts before."""
    job_id = ledger.succeeded()
    first = ledger.settle(DeliveryState.PENDING, retry=10)
    assert ledger.take() == []
    (delivery,) = ledger.deliveries.of(job_subject(job_id))
    assert (delivery.due_ms, delivery.tries) == (ledger.now_ms + 10_000, (REFUSED,))
    ledger.advance(10)
    assert ledger.settle(DeliveryState.DELIVERED, OK) == first
    (delivery,) = ledger.deliveries.of(job_subject(job_id))
    assert (delivery.state, delivery.due_ms) == (DeliveryState.DELIVERED, None)
    assert delivery.tries == (OK, REFUSED)
    assert ledger.deliveries.totals().attempts == {"accepted": 1, "refused": 1}


def test_a_second_message_of_a_refused_delivery_makes_no_attempt_before_its_time(ledger: Ledger) -> None:
    """The first one waited in the queue for so long that another was sent; both come in the end."""
    ledger.succeeded()
    (first,) = ledger.take()
    ledger.advance(HOLD + 1)
    (second,) = ledger.take()
    assert ledger.deliveries.claim(first, "one", LEASE)
    assert ledger.deliveries.settle(first.delivery_id, "one", DeliveryState.PENDING, REFUSED, 7200)
    assert ledger.deliveries.claim(second, "two", LEASE) is None
    ledger.advance(7201)
    (third,) = ledger.take()
    delivery = ledger.deliveries.claim(third, "three", LEASE)
    assert delivery
    assert delivery.attempt == 2


def test_only_the_newest_attempts_are_remembered(ledger: Ledger) -> None:
    """A record does not grow without end."""
    job_id = ledger.succeeded()
    for number in range(60):
        ledger.settle(DeliveryState.PENDING, REFUSED.model_copy(update={"at_ms": number}))
    (delivery,) = ledger.deliveries.of(job_subject(job_id))
    assert [made.at_ms for made in delivery.tries] == list(range(59, 9, -1))
    assert delivery.attempt == 60


def test_a_host_gets_no_more_at_a_time_than_it_has_places(ledger: Ledger) -> None:
    """However many wait for it; and another host's are given out beside them."""
    for _ in range(10):
        ledger.succeeded()
    ledger.succeeded(url="http://other.example.org/")
    taken = ledger.take()
    assert [item.host for item in taken].count(HOST) == PLACES
    assert [item.host for item in taken].count("other.example.org") == 1
    assert ledger.take() == []
    slow = next(item for item in taken if item.host == HOST)
    assert ledger.deliveries.claim(slow, "t", LEASE)
    assert ledger.deliveries.settle(slow.delivery_id, "t", DeliveryState.PENDING, REFUSED, 500)
    assert len(ledger.take()) == 1


def test_a_host_has_places_for_each_api_key(ledger: Ledger) -> None:
    """What one key has told to a slow receiver does not hold back what another key has told to the same."""
    for owner in (*["greedy"] * 10, "other"):
        new = ledger.new_job(URL)
        new = new.model_copy(update={"spec": new.spec.model_copy(update={"owner": owner})})
        ledger.jobs.create(new, 1000)
        ledger.jobs.cancel(new.id)
    taken = ledger.take()
    assert [item.owner for item in taken].count("greedy") == PLACES
    assert [item.owner for item in taken].count("other") == 1
    for item in taken:
        assert ledger.deliveries.claim(item, "t", LEASE)


def test_one_that_is_being_made_holds_up_no_other_of_its_host(ledger: Ledger) -> None:
    """While the host has a free place: the next look gives the other out."""
    for _ in range(2):
        ledger.succeeded()
    (first,) = ledger.deliveries.take(PLACES, 1, HOLD)
    assert ledger.deliveries.claim(first, "t", LEASE)
    (second,) = ledger.take()
    assert second != first


def test_who_has_sent_one_takes_the_next_of_the_same_host(ledger: Ledger) -> None:
    """A quick receiver does not wait for the next look."""
    for _ in range(3):
        ledger.succeeded()
    ledger.succeeded(url="http://other.example.org/")
    for _ in range(3):
        (taken,) = ledger.deliveries.take(1, 1, HOLD, HOST)
        assert ledger.deliveries.claim(taken, "t", LEASE)
        assert ledger.deliveries.settle(taken.delivery_id, "t", DeliveryState.DELIVERED, OK)
    assert ledger.deliveries.take(1, 1, HOLD, HOST) == []
    assert [item.host for item in ledger.take()] == ["other.example.org"]


def test_a_record_that_cannot_be_read_gives_its_place_back(redis_client: redis.Redis) -> None:
    """Another version's; it waits outside, and is made once this one is upgraded."""
    ledger = redis_ledger(redis_client)
    deliveries = ledger.deliveries
    ledger.succeeded()
    (taken,) = deliveries.take(1, 1, HOLD)
    record = keys.WEBHOOK + taken.delivery_id
    data = str(redis_client.hget(record, "data"))
    redis_client.hset(record, "data", '{"of": "a later version"}')
    assert deliveries.claim(taken, "s", LEASE) is None
    ledger.succeeded()
    (other,) = deliveries.take(1, 1, HOLD)
    assert deliveries.claim(other, "s", LEASE) is not None
    assert deliveries.settle(other.delivery_id, "s", DeliveryState.DELIVERED, OK)
    redis_client.hset(record, "data", data)
    ledger.advance(UNREADABLE_HOLD_SECONDS)
    assert deliveries.take(1, 1, HOLD) == [taken]
    delivery = deliveries.claim(taken, "s", LEASE)
    assert delivery is not None
    assert [made.error for made in delivery.tries] == ["unreadable"]


def test_a_retried_job_announces_its_second_end_too(ledger: Ledger) -> None:
    """The first event stays what it was."""
    job_id = end(ledger, "canceled")
    ledger.jobs.retry(job_id, 1000)
    claim(ledger.jobs, job_id)
    succeed(ledger.jobs, job_id, {"class": "lung_n"})
    deliveries = ledger.deliveries.of(job_subject(job_id))
    assert [item.event for item in deliveries] == ["job.canceled", "job.succeeded"]
    assert [item.about.status for item in deliveries] == ["canceled", "succeeded"]
    assert len({item.id for item in deliveries}) == 2
    assert len(ledger.take()) == 2


def test_a_receiver_that_wants_no_more_gets_no_more_of_this_job(ledger: Ledger) -> None:
    """Neither what waits, nor what a later end would announce; other jobs go on."""
    job_id = end(ledger, "canceled")
    ledger.jobs.retry(job_id, 1000)
    ledger.jobs.cancel(job_id)
    taken = ledger.take()
    assert ledger.deliveries.claim(taken[0], "t", LEASE)
    assert ledger.deliveries.settle(taken[0].delivery_id, "t", DeliveryState.DISABLED, REFUSED)
    subject = job_subject(job_id)
    assert ledger.deliveries.is_off(subject)
    assert [item.state for item in ledger.deliveries.of(subject)] == [DeliveryState.DISABLED] * 2
    ledger.jobs.retry(job_id, 1000)
    ledger.jobs.cancel(job_id)
    assert len(ledger.deliveries.of(subject)) == 2
    assert ledger.deliveries.claim(taken[1], "t", LEASE) is None
    ledger.advance(HOLD + 1)
    assert ledger.take() == []
    assert ledger.deliveries.totals().ended["disabled"] == 2
    ledger.succeeded()
    assert len(ledger.take()) == 1


def test_a_delivery_is_made_once_more_at_its_owners_wish(ledger: Ledger) -> None:
    """Whatever became of it, under the same id, with all its time before it."""
    job_id = ledger.succeeded()
    subject = job_subject(job_id)
    first = ledger.settle(DeliveryState.DISABLED)
    ledger.advance(100)
    again = ledger.deliveries.redeliver(subject)
    assert again is not None
    assert (again.id, again.state, again.since_ms, again.due_ms) == (
        first,
        DeliveryState.PENDING,
        ledger.now_ms,
        ledger.now_ms,
    )
    assert again.announced_at_ms == ledger.now_ms - 100_000
    assert not ledger.deliveries.is_off(subject)
    assert ledger.deliveries.totals().oldest_pending_at_ms == ledger.now_ms
    assert ledger.settle(DeliveryState.DELIVERED, OK) == first


def test_one_that_waits_for_its_retry_is_made_now(ledger: Ledger) -> None:
    """The receiver is mended, and its owner does not want to wait."""
    job_id = ledger.succeeded()
    ledger.settle(DeliveryState.PENDING, retry=5000)
    assert ledger.take() == []
    ledger.deliveries.redeliver(job_subject(job_id))
    assert len(ledger.take()) == 1


def test_one_that_is_being_made_is_not_made_twice_at_a_time(ledger: Ledger) -> None:
    """The wish comes while it is under way."""
    job_id = ledger.succeeded()
    (taken,) = ledger.take()
    assert ledger.deliveries.claim(taken, "t", LEASE)
    ledger.deliveries.redeliver(job_subject(job_id))
    assert ledger.take() == []


def test_there_is_nothing_to_make_once_more_of_a_job_without_a_delivery(ledger: Ledger) -> None:
    """It is open, or nobody asked."""
    assert ledger.deliveries.redeliver(job_subject(ledger.job())) is None
    assert ledger.deliveries.redeliver(job_subject(new_job_id())) is None


def test_deleting_a_job_removes_its_deliveries(ledger: Ledger) -> None:
    """Also one whose message is out; an open job that is deleted announces nothing."""
    job_id = ledger.succeeded()
    (taken,) = ledger.take()
    ledger.jobs.delete(job_id)
    ledger.jobs.delete(ledger.job())
    assert ledger.deliveries.of(job_subject(job_id)) == []
    assert ledger.deliveries.claim(taken, "t", LEASE) is None
    assert ledger.deliveries.totals().pending == 0
    ledger.advance(HOLD + 1)
    assert ledger.take() == []


def test_an_attempt_that_ends_after_the_deletion_leaves_nothing(ledger: Ledger) -> None:
    """Whoever was just sending it comes too late."""
    job_id = ledger.succeeded()
    (taken,) = ledger.take()
    assert ledger.deliveries.claim(taken, "t", LEASE)
    ledger.jobs.delete(job_id)
    assert not ledger.deliveries.settle(taken.delivery_id, "t", DeliveryState.PENDING, REFUSED, 1)
    ledger.advance(100)
    assert ledger.take() == []


def test_deliveries_go_when_the_result_goes(ledger: Ledger) -> None:
    """What its owner was promised to be dropped is not sent either."""
    job_id = ledger.succeeded()
    ledger.settle(DeliveryState.PENDING, retry=20)
    ledger.advance(3601)
    for _ in range(2):  # the image, then the result
        for item in ledger.jobs.cleanable(10):
            ledger.jobs.cleaned(item)
    assert ledger.deliveries.of(job_subject(job_id)) == []
    assert ledger.take() == []


def test_nothing_is_left_in_redis_of_a_job_that_was_deleted(redis_client: redis.Redis) -> None:
    """But the record of the job, which says that it was deleted, and not whom it was told to."""
    ledger = redis_ledger(redis_client)
    job_id = ledger.succeeded()
    assert "example.org" in str(redis_client.hgetall(keys.JOB + job_id))
    ledger.jobs.delete(job_id)
    assert "example.org" not in str(redis_client.hgetall(keys.JOB + job_id))
    ledger.take()
    assert list(redis_client.scan_iter(keys.WEBHOOK + "*")) == []
    assert list(redis_client.scan_iter("webhooks:*")) == []


def test_a_record_of_a_delivery_goes_by_itself_with_the_result(redis_client: redis.Redis) -> None:
    """Also where no cleaner comes by."""
    ledger = redis_ledger(redis_client)
    ledger.succeeded()
    (taken,) = ledger.take()
    assert 0 < redis_client.pttl(keys.WEBHOOK + taken.delivery_id) <= 3_600_000
    redis_client.delete(keys.WEBHOOK + taken.delivery_id)
    assert ledger.deliveries.claim(taken, "t", LEASE) is None
    assert ledger.deliveries.totals().pending == 0


def batch_of(ledger: Ledger, members: int, url: str | None = URL) -> tuple[str, list[str]]:
    """Return a whole batch with so many queued jobs."""
    new = NewBatch(
        id=new_job_id(), webhook_url=url, expires_in_seconds=600, retention_seconds=3600, tombstone_seconds=60
    )
    ledger.jobs.create_batch(new)
    news = [ledger.new_job(None) for _ in range(members)]
    news = [item.model_copy(update={"spec": item.spec.model_copy(update={"batch": new.id})}) for item in news]
    ledger.jobs.create_many(news, 1000)
    ledger.jobs.batch(new.id, seal=True)
    return new.id, [item.id for item in news]


def test_a_batch_is_announced_once_its_last_job_has_ended(ledger: Ledger) -> None:
    """With the batch as it is then; its jobs are not told of one by one."""
    batch_id, (first, second) = batch_of(ledger, 2)
    ledger.jobs.cancel(first)
    assert ledger.deliveries.of(batch_subject(batch_id)) == []
    ledger.jobs.cancel(second)
    ledger.jobs.batch(batch_id, seal=True)
    (delivery,) = ledger.deliveries.of(batch_subject(batch_id))
    assert (delivery.event, delivery.url, delivery.host) == ("batch.completed", URL, HOST)
    assert delivery.about == ledger.jobs.batch(batch_id)
    assert isinstance(delivery.about, Batch)
    assert delivery.about.counts[JobStatus.CANCELED] == 2
    assert ledger.deliveries.of(job_subject(first)) == []
    (taken,) = ledger.take()
    assert ledger.deliveries.claim(taken, "t", LEASE) is not None


def test_a_batch_whose_last_open_job_is_deleted_is_announced_without_it(ledger: Ledger) -> None:
    """As whoever reads it then finds it: canceled one, deleted one."""
    batch_id, (first, second) = batch_of(ledger, 2)
    ledger.jobs.cancel(first)
    ledger.jobs.delete(second)
    (delivery,) = ledger.deliveries.of(batch_subject(batch_id))
    assert delivery.about == ledger.jobs.batch(batch_id)
    assert isinstance(delivery.about, Batch)
    assert (delivery.about.counts[JobStatus.CANCELED], delivery.about.deleted) == (1, 1)


def test_a_batch_that_is_opened_again_is_announced_again(ledger: Ledger) -> None:
    """Under another id: the second end is another event."""
    batch_id, (job_id,) = batch_of(ledger, 1)
    ledger.jobs.cancel(job_id)
    ledger.jobs.retry(job_id, 10)
    ledger.jobs.cancel(job_id)
    deliveries = ledger.deliveries.of(batch_subject(batch_id))
    assert [item.id for item in deliveries] == [f"{batch_id}_1", f"{batch_id}_2"]


def test_a_batch_without_a_webhook_announces_nothing(ledger: Ledger) -> None:
    """Nor does one that is still open."""
    batch_id, (job_id,) = batch_of(ledger, 1, None)
    ledger.jobs.cancel(job_id)
    assert ledger.deliveries.of(batch_subject(batch_id)) == []
    assert ledger.take() == []
