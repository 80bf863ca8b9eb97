"""What is sent, signed with every secret, and what each answer leads to."""

import json
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from ops.prepare import webhook_secret
from shared.deliveries import DeliveryState, Taken, job_subject
from shared.errors import JobStoreUnavailable, QueueUnavailable
from shared.job_store_memory import MemoryJobStore
from shared.schemas import JobError
from shared.settings import Settings
from tests.work import claim, fail, new_job
from worker.webhook_delivery import HOLD_SECONDS, LEASE_SECONDS, Deliverer
from worker.webhook_http import TIMEOUT_SECONDS, Answer

URL = "https://receiver.example.org/hook"
OK = Answer(200, None)


class Bench:
    """A ledger with a clock to move, a queue, and a network that answers as it is told."""

    def __init__(self, **settings: Any) -> None:
        self.now_ms = 1_800_000_000_000
        self.jobs = MemoryJobStore(lambda: self.now_ms)
        self.deliveries = self.jobs.deliveries
        self.secrets = [webhook_secret(), webhook_secret()]
        given = {"webhook_secret": SecretStr(" ".join(self.secrets)), **settings}
        self.settings = Settings(**given)
        self.messages: list[Taken] = []
        self.sent: list[tuple[str, bytes, dict[str, str]]] = []
        self.answers: list[Answer] = []
        self.deliverer = Deliverer(self.deliveries, self.settings, self.messages.append, self.send)

    def send(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Stand for the network; OK where nothing else is asked for."""
        self.sent.append((url, body, headers))
        return self.answers.pop(0) if self.answers else OK

    def job(self, url: str = URL, owner: str | None = None) -> str:
        """Return a job that failed."""
        new = new_job(retention=7 * 86_400, webhook_url=url, owner=owner)
        self.jobs.create(new, 1000)
        claim(self.jobs, new.id)
        fail(self.jobs, new.id, JobError(code="INVALID_IMAGE", detail="It breaks off."))
        return new.id

    def turn(self) -> int:
        """Publish what is due and do what the messages say; return how many were published."""
        count = self.deliverer.dispatch()
        while self.messages:
            self.deliverer.run(self.messages.pop(0))
        return count

    def delivery(self, job_id: str) -> Any:
        """Return the job's one delivery."""
        (found,) = self.deliveries.of(job_subject(job_id))
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_body_is_the_event_with_the_job_as_its_route_answers(bench: Bench) -> None:
    """As Standard Webhooks has it: type, timestamp, data."""
    job_id = bench.job()
    bench.turn()
    ((url, body, headers),) = bench.sent
    event = json.loads(body)
    assert url == URL
    assert event["type"] == "job.failed"
    assert event["timestamp"] == "2027-01-15T08:00:00.000Z"
    assert (event["data"]["id"], event["data"]["status"]) == (job_id, "failed")
    assert event["data"]["error"]["code"] == "INVALID_IMAGE"
    assert event["data"]["error"]["status"] == 422
    assert event["data"]["links"]["self"] == f"/result/{job_id}"
    assert headers["webhook-id"] == bench.delivery(job_id).id
    assert "not for diagnostic use" in headers["X-HistoQueue-Notice"]
    # Where the image lies is nobody's business, nor is whom it is told to.
    assert b"uploads/inside" not in body
    assert b"receiver.example.org" not in body


def test_links_lead_below_where_the_server_is_mounted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its own answers do: whoever is told follows them."""
    monkeypatch.setenv("SCRIPT_NAME", "/tiles")
    deliverer = Deliverer(bench.deliveries, bench.settings, bench.messages.append, bench.send)
    job_id = bench.job()
    deliverer.dispatch()
    deliverer.run(bench.messages.pop())
    ((_, body, _),) = bench.sent
    job = json.loads(body)["data"]
    assert job["links"]["self"] == f"/tiles/result/{job_id}"
    assert job["error"]["type"].startswith("/tiles/docs/errors#")


def test_every_secret_signs(bench: Bench) -> None:
    """So a secret can be changed while receivers know one of the two."""
    bench.job()
    bench.turn()
    ((_, body, headers),) = bench.sent
    for secret in bench.secrets:
        Webhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhook_secret()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(bench.secrets[0]).verify(body + b" ", headers)
    age = datetime.now(UTC).timestamp() - int(headers["webhook-timestamp"])
    assert 0 <= age < 60


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (OK, "delivered"),
        (Answer(410, "gone"), "disabled"),
        (Answer(302, "redirect"), "pending"),
        (Answer(500, "not_accepted"), "pending"),
        (Answer(400, "not_accepted"), "pending"),
        (Answer(None, "timeout"), "pending"),
        (Answer(None, "forbidden_address"), "pending"),
    ],
)
def test_what_an_answer_leads_to(bench: Bench, answer: Answer, state: str) -> None:
    """2xx ends it well, 410 for good; everything else is tried again."""
    bench.answers.append(answer)
    job_id = bench.job()
    bench.turn()
    delivery = bench.delivery(job_id)
    assert delivery.state == state
    (made,) = delivery.tries
    assert (made.status, made.error, made.at_ms) == (answer.status, answer.error, bench.now_ms)
    assert (delivery.due_ms is None) == (state != "pending")


def test_an_attempt_says_how_long_it_took(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In milliseconds: whoever looks for a slow receiver finds it."""
    job_id = bench.job()
    bench.deliverer.dispatch()
    times = iter([100.0, 100.0, 101.0, 102.25])
    monkeypatch.setattr("worker.webhook_delivery.time", SimpleNamespace(monotonic=lambda: next(times, 200.0)))
    bench.deliverer.run(bench.messages.pop())
    assert bench.delivery(job_id).tries[0].duration_ms == 1250


def test_retries_are_spread_over_a_day_and_then_given_up(bench: Bench) -> None:
    """Each wait is between nothing and its place in the schedule; the last place holds on."""
    bench.answers = [Answer(500, "not_accepted")] * 10_000
    job_id = bench.job()
    began, waits = bench.now_ms, []
    while bench.turn():
        delivery = bench.delivery(job_id)
        if delivery.state != DeliveryState.PENDING:
            break
        waits.append((delivery.due_ms - bench.now_ms) / 1000)
        bench.now_ms = delivery.due_ms
    assert bench.delivery(job_id).state == DeliveryState.FAILED
    longest = [10, 60, 300, 1800, *([7200] * len(waits))]
    assert all(0 <= wait <= most for wait, most in zip(waits, longest, strict=False))
    assert max(waits) > 1800
    assert len({round(wait, 3) for wait in waits}) > len(waits) / 2
    hours = (bench.now_ms - began) / 3_600_000
    assert 20 < hours <= 24
    bench.now_ms += 100 * 86_400_000
    assert bench.turn() == 0


def test_one_that_is_made_once_more_by_hand_has_the_whole_schedule_before_it(bench: Bench) -> None:
    """Its waits begin short again, and its day anew; the event is as old as it was."""
    bench.answers = [Answer(500, "not_accepted")] * 1000
    job_id = bench.job()
    while bench.delivery(job_id).state == DeliveryState.PENDING:
        bench.turn()
        bench.now_ms = bench.delivery(job_id).due_ms or bench.now_ms
    bench.now_ms += 2 * 86_400_000
    bench.deliveries.redeliver(job_subject(job_id))
    assert bench.turn() == 1
    delivery = bench.delivery(job_id)
    assert delivery.state == DeliveryState.PENDING
    assert delivery.due_ms - bench.now_ms <= 10_000
    assert len({json.loads(body)["timestamp"] for _, body, _ in bench.sent}) == 1


def test_who_has_told_one_goes_on_with_the_next_of_the_same_host(bench: Bench) -> None:
    """One look gives out as many as the host has places; the rest follow without another."""
    for _ in range(20):
        bench.job()
    assert bench.turn() == bench.settings.webhook_threads_per_host
    assert len(bench.sent) == 20
    bench.job()
    bench.deliverer.dispatch()
    bench.job("https://another.example.org/")
    bench.deliverer.run(bench.messages.pop())
    assert {url for url, _, _ in bench.sent} == {URL}


def test_a_turn_ends_so_that_another_host_has_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next delivery then waits on the queue, behind the others."""
    monkeypatch.setattr("worker.webhook_delivery.TURN_SECONDS", 0.0)
    bench.job()
    (taken,) = bench.deliveries.take(1, 1, HOLD_SECONDS)
    bench.deliverer.run(taken)
    assert bench.sent == []
    assert bench.messages == [taken]


def test_one_keys_slow_receivers_leave_threads_to_another_key(bench: Bench) -> None:
    """However many it names: of four it has three, and what is over waits until one of those is done."""
    bench = Bench(webhook_threads=4)
    sending, answered = threading.Semaphore(0), threading.Event()

    def hang(url: str, body: bytes, headers: dict[str, str]) -> Answer:
        bench.sent.append((url, body, headers))
        if "slow" in url:
            sending.release()
            assert answered.wait(20)
        return OK

    deliverer = Deliverer(bench.deliveries, bench.settings, bench.messages.append, hang)
    for number in range(4):
        bench.job(f"https://slow-{number}.example.org/", "greedy")
    bench.job(owner="other")
    deliverer.dispatch()
    quick, *slow, over = sorted(bench.messages, key=lambda taken: "slow" in taken.host)
    bench.messages.clear()
    threads = [threading.Thread(target=deliverer.run, args=(taken,)) for taken in slow]
    for thread in threads:
        thread.start()
        assert sending.acquire(timeout=20)
    deliverer.run(over)
    deliverer.run(quick)
    assert len(bench.sent) == 4
    assert bench.sent[-1][0] == URL
    answered.set()
    for thread in threads:
        thread.join()
    assert bench.messages == [over]
    deliverer.run(over)
    assert len(bench.sent) == 5


def test_one_that_shuts_down_takes_no_more(bench: Bench) -> None:
    """What it has not begun stays for another."""
    for _ in range(3):
        bench.job()
    bench.deliverer.dispatch()
    bench.deliverer.run(bench.messages[0], is_draining=lambda: True)
    assert len(bench.sent) == 1


def test_a_message_of_one_that_is_deleted_sends_nothing(bench: Bench) -> None:
    """It was on the queue at that moment."""
    job_id = bench.job()
    bench.deliverer.dispatch()
    bench.jobs.delete(job_id)
    bench.deliverer.run(bench.messages[0])
    assert bench.sent == []


def test_without_a_secret_nothing_is_sent() -> None:
    """What was accepted before the secret was taken away waits for the next one."""
    bench = Bench(webhook_secret=None)
    job_id = bench.job()
    assert bench.turn() == 0
    assert bench.delivery(job_id).state == DeliveryState.PENDING


def test_a_ledger_that_goes_away_after_the_sending_costs_nothing(bench: Bench) -> None:
    """The outcome is not booked: the event is told once more, later, under its id."""
    job_id = bench.job()
    bench.deliverer.dispatch()

    def away(*arguments: Any) -> bool:
        raise JobStoreUnavailable("away")

    settle, bench.deliveries.settle = bench.deliveries.settle, away  # type: ignore[method-assign,assignment]
    bench.deliverer.run(bench.messages.pop())
    bench.deliveries.settle = settle  # type: ignore[method-assign]
    assert bench.turn() == 0
    bench.now_ms += int(LEASE_SECONDS * 1000) + 1
    assert bench.turn() == 1
    assert bench.delivery(job_id).state == DeliveryState.DELIVERED
    assert len({headers["webhook-id"] for _, _, headers in bench.sent}) == 1


def test_a_fault_of_our_own_is_counted_and_told_again(bench: Bench) -> None:
    """Else it would be made again without end."""
    job_id = bench.job()

    def fail(url: str, body: bytes, headers: dict[str, str]) -> Answer:
        raise ValueError("a bug")

    broken = Deliverer(bench.deliveries, bench.settings, bench.messages.append, fail)
    broken.dispatch()
    broken.run(bench.messages.pop())
    delivery = bench.delivery(job_id)
    assert (delivery.state, delivery.tries[0].error) == (DeliveryState.PENDING, "internal")


def test_a_queue_that_is_away_loses_nothing(bench: Bench) -> None:
    """What could not be published is given out again."""
    bench.job()

    def away(taken: Taken) -> None:
        raise QueueUnavailable("away")

    broken = Deliverer(bench.deliveries, bench.settings, away, bench.send)
    with pytest.raises(QueueUnavailable):
        broken.dispatch()
    assert bench.turn() == 0
    bench.now_ms += int(HOLD_SECONDS * 1000) + 1
    assert bench.turn() == 1


def test_a_sender_is_done_before_it_counts_as_lost() -> None:
    """Else a slow receiver would be told twice at the same time."""
    assert TIMEOUT_SECONDS + 3 < LEASE_SECONDS
