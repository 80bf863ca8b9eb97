"""What the client asks, when it asks again, when it gives up: conversations without a network or a clock."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from histoqueue import (
    IdempotencyKeyReused,
    InternalFault,
    InvalidImage,
    JobAlreadyFinal,
    MethodNotAllowed,
    NotSupported,
    QueueFull,
    RequestTooLarge,
    RouteNotFound,
    ServerUnreachable,
    Unavailable,
    UnexpectedAnswer,
    WaitTimedOut,
)
from histoqueue import _flows as flows
from histoqueue._http import Answer, Flow, Pause, Request, Unanswered, retry_after_seconds
from histoqueue._models import BatchRecord, JobRecord
from histoqueue._retry import Patience, exchange
from histoqueue._upload import load

Reply = Answer | Unanswered
QUEUED = {"id": "a1", "status": "queued", "links": {"self": "/result/a1", "cancel": "/result/a1/cancel"}}
DONE = {"id": "a1", "status": "succeeded", "result": {"class": "lung_n"}}
FULL = {"code": "QUEUE_FULL", "status": 429, "retryable": True}


class Clock:
    """Time that passes only by pauses and by held answers."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def patience(clock: Clock) -> Patience:
    """A minute, with the greatest jitter there can be."""
    return Patience(60, clock=clock, uniform=lambda low, high: high)


class Conversation:
    """Plays back replies; notes what was asked and how long was paused."""

    def __init__(self, clock: Clock, replies: Iterator[Reply], held_seconds: float = 0.0) -> None:
        self._clock, self._replies, self._held_seconds = clock, replies, held_seconds
        self.requests: list[Request] = []
        self.pauses: list[float] = []

    def hold(self, flow: Flow[Any]) -> Any:
        """Return the flow's outcome."""
        reply: Reply | None = None
        try:
            while True:
                step = flow.send(reply)
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self._clock.now += step.seconds
                    reply = None
                else:
                    self.requests.append(step)
                    self._clock.now += min(step.wait_seconds, self._held_seconds)
                    reply = next(self._replies)
        except StopIteration as end:
            return end.value


@pytest.fixture
def converse(clock: Clock) -> Callable[..., Conversation]:
    """Return a conversation with these replies; the last one is repeated for ever."""

    def begin(*replies: Reply, held_seconds: float = 0.0) -> Conversation:
        return Conversation(clock, itertools.chain(replies[:-1], itertools.repeat(replies[-1])), held_seconds)

    return begin


def answer(status: int, body: Mapping[str, Any], **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, json.dumps(body).encode())


def submission(patience: Patience, wait: float | None = None) -> Flow[JobRecord]:
    return flows.submit(load(b"\xff\xd8\xff"), {}, wait, None, patience)


def test_one_key_for_every_try_of_one_submission(patience: Patience, converse: Any) -> None:
    """So that a lost answer never makes a second job; another submission has another key."""
    talk = converse(Unanswered("broken"), answer(503, {}), answer(202, QUEUED))
    assert talk.hold(submission(patience)).id == "a1"
    assert len(talk.requests) == 3
    assert len({request.headers["Idempotency-Key"] for request in talk.requests}) == 1
    other = converse(answer(202, QUEUED))
    other.hold(submission(patience))
    assert other.requests[0].headers["Idempotency-Key"] != talk.requests[0].headers["Idempotency-Key"]


def test_the_server_says_when_and_jitter_comes_on_top(patience: Patience, converse: Any) -> None:
    """`Retry-After` is waited for whole; what is added doubles, up to a limit."""
    talk = converse(*[answer(429, FULL, Retry_After="3")] * 3, answer(202, QUEUED))
    talk.hold(submission(patience))
    assert talk.pauses == [3.5, 4.0, 5.0]
    assert [patience.pause_seconds(attempt, None) for attempt in (0, 1, 2, 5, 9, 2000)] == [
        0.5, 1, 2, 16, 20, 20,
    ]  # fmt: skip


def test_jitter_is_full() -> None:
    """Anywhere from nothing to the longest pause."""
    pauses = [Patience().pause_seconds(3, None) for _ in range(500)]
    assert min(pauses) < 0.4
    assert 3.6 < max(pauses) <= 4.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "0"}, 0),
        # The machine's own clock may be wrong; the server's date says what its date means.
        ({"Retry-After": "Sat, 31 Jan 2026 09:31:00 GMT", "Date": "Sat, 31 Jan 2026 09:30:00 GMT"}, 60),
        ({"Retry-After": "Sat, 31 Jan 2026 09:31:00 -0000", "Date": "Sat, 31 Jan 2026 09:30:00 GMT"}, 60),
        ({"Retry-After": "Sat, 31 Jan 2026 09:29:00 GMT", "Date": "Sat, 31 Jan 2026 09:30:00 GMT"}, 0),
        ({"Retry-After": "Sat, 31 Jan 2026 09:30:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "\u00b2"}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    """As RFC 9110 has it; what is neither counts as not there."""
    assert retry_after_seconds(headers) == seconds


def test_it_gives_up_when_its_patience_is_over(clock: Clock, patience: Patience, converse: Any) -> None:
    """With the last error, and before the time rather than after it."""
    talk = converse(answer(503, {"code": "JOB_STORE_UNAVAILABLE", "status": 503, "retryable": True}))
    with pytest.raises(Unavailable, match="JOB_STORE_UNAVAILABLE"):
        talk.hold(submission(patience))
    assert 30 < clock.now <= 60


def test_a_pause_longer_than_its_patience_is_not_begun(patience: Patience, converse: Any) -> None:
    """The caller is told at once, and when to come back."""
    talk = converse(answer(429, FULL, Retry_After="3600"))
    with pytest.raises(QueueFull) as caught:
        talk.hold(submission(patience))
    assert talk.pauses == []
    assert caught.value.retry_after_seconds == 3600


def test_no_answer_at_all_is_an_error_of_time(patience: Patience, converse: Any) -> None:
    """A server that is being started again is one."""
    with pytest.raises(ServerUnreachable, match="connection refused"):
        converse(Unanswered("connection refused")).hold(submission(patience))


@pytest.mark.parametrize(
    ("code", "kind"), [("INVALID_IMAGE", InvalidImage), ("IDEMPOTENCY_KEY_REUSED", IdempotencyKeyReused)]
)
def test_what_the_caller_must_change_is_asked_once(
    code: str, kind: type[Exception], patience: Patience, converse: Any
) -> None:
    """Asking again would not help."""
    talk = converse(answer(422, {"code": code, "status": 422, "retryable": False}))
    with pytest.raises(kind):
        talk.hold(submission(patience))
    assert len(talk.requests) == 1


def test_a_fault_that_may_be_due_to_the_image_is_asked_about_a_few_times(
    patience: Patience, converse: Any
) -> None:
    """It may pass; it must not hold a run up for as long as a full queue may."""
    talk = converse(answer(500, {"code": "INTERNAL", "status": 500, "retryable": True}))
    with pytest.raises(InternalFault):
        talk.hold(submission(patience))
    assert len(talk.requests) == 4


def test_a_proxys_own_error_page_is_an_error_of_time(patience: Patience, converse: Any) -> None:
    """A 502 in HTML means that the server behind it is away."""
    talk = converse(Answer(502, {}, b"<html>Bad Gateway"), answer(202, QUEUED))
    assert talk.hold(submission(patience)).status == "queued"


@pytest.mark.parametrize(
    "body",
    [
        *(b"<html>", b"[]", b"{}", b'{"id": "x"}', b'{"id": "x", "status": "queued", "queue": 5}'),
        b'{"id": "x", "status": "queued", "links": ["/result/x"]}',
        b'{"id": "x", "status": "queued", "links": {"self": 5}}',
        b'{"id": "x", "status": "failed", "error": {"code": ["POISON"]}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_job_is_an_unexpected_answer(body: bytes, patience: Patience, converse: Any) -> None:
    """Another service may listen there."""
    with pytest.raises(UnexpectedAnswer):
        converse(Answer(200, {}, body)).hold(submission(patience))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, RouteNotFound),
        (405, MethodNotAllowed),
        (413, RequestTooLarge),
        (422, UnexpectedAnswer),
        (500, InternalFault),
    ],
)
def test_words_of_another_are_understood_by_their_status(
    status: int, kind: type[Exception], patience: Patience, converse: Any
) -> None:
    """A proxy has a limit of its own; another service has no such route."""
    with pytest.raises(kind, match=f"status {status}, .*'<html>'"):
        converse(Answer(status, {}, b"<html>")).hold(submission(patience))
    # As Kubernetes says it, and what stands in its cluster under a wrong address.
    with pytest.raises(kind, match=f"status {status}, .*Failure"):
        converse(answer(status, {"status": "Failure", "code": status})).hold(submission(patience))


def test_a_wait_is_asked_for_with_the_submission(patience: Patience, converse: Any) -> None:
    """One request is enough where the job ends in time."""
    talk = converse(answer(200, DONE))
    assert talk.hold(submission(patience, wait=12.2)).result.class_name == "lung_n"
    assert [request.headers["Prefer"] for request in talk.requests] == ["wait=13"]


def test_a_long_wait_goes_on_in_held_requests(clock: Clock, patience: Patience, converse: Any) -> None:
    """30 seconds each, with no pause in between; an unmet wait is no error of a submission."""
    talk = converse(answer(202, QUEUED, ETag='"1"'), held_seconds=30)
    assert talk.hold(submission(patience, wait=70)).status == "queued"
    assert [request.query.get("wait") for request in talk.requests] == [None, "30.000", "10.000"]
    assert talk.pauses == []
    assert clock.now == 70


def test_a_wait_sends_back_what_it_knows(patience: Patience, converse: Any) -> None:
    """An unchanged job comes as an empty 304."""
    record = JobRecord.from_json(QUEUED)
    talk = converse(answer(202, QUEUED, ETag='"1"'), Answer(304, {}, b""), answer(200, DONE), held_seconds=30)
    assert talk.hold(flows.wait_for(record, None, patience)).status == "succeeded"
    assert [request.headers.get("If-None-Match") for request in talk.requests] == [None, '"1"', '"1"']


def test_a_server_that_holds_nothing_back_is_asked_when_it_says(patience: Patience, converse: Any) -> None:
    """Else a full waiting room would be stormed by those whom it sent away."""
    talk = converse(*[answer(202, QUEUED, Retry_After="7")] * 2, answer(200, DONE))
    talk.hold(flows.wait_for(JobRecord.from_json(QUEUED), None, patience))
    assert talk.pauses == [7.5, 7.5]


def test_a_wait_that_is_over_is_a_timeout(clock: Clock, patience: Patience, converse: Any) -> None:
    """To the second, and a TimeoutError as well."""
    talk = converse(answer(202, QUEUED, Retry_After="7"), held_seconds=0)
    with pytest.raises(TimeoutError) as caught:
        talk.hold(flows.wait_for(JobRecord.from_json(QUEUED), 10, patience))
    assert isinstance(caught.value, WaitTimedOut)
    assert clock.now == 10


def test_a_wait_for_no_number_of_seconds_is_refused(patience: Patience, converse: Any) -> None:
    """Before anything is sent: it would have no end. One that is over before it begins is a timeout."""
    talk, record = converse(answer(200, DONE)), JobRecord.from_json(QUEUED)
    with pytest.raises(ValueError, match="Expected seconds"):
        talk.hold(flows.wait_for(record, float("nan"), patience))
    with pytest.raises(ValueError, match="Expected seconds"):
        talk.hold(submission(patience, wait=float("nan")))
    with pytest.raises(WaitTimedOut):
        talk.hold(flows.wait_for(record, -1, patience))
    assert talk.requests == []


def test_links_are_followed(patience: Patience, converse: Any) -> None:
    """Where the server says where a job is, no path is built."""
    moved = {**QUEUED, "links": {"self": "/v2/jobs/a1", "cancel": "/v2/jobs/a1/end"}}
    record = JobRecord.from_json(moved)
    for flow in (flows.get, flows.cancel):
        talk = converse(answer(200, DONE))
        talk.hold(flow(record, patience))
        assert talk.requests[0].path.startswith("/v2/jobs/a1")


def test_a_cancel_whose_answer_was_lost_is_still_a_cancel(patience: Patience, converse: Any) -> None:
    """The second try is told that the job is final; it is so by the first one."""
    refusal = answer(409, {"code": "JOB_ALREADY_FINAL", "status": 409})
    canceled = {**DONE, "status": "canceled", "result": None}
    talk = converse(Unanswered("broken"), refusal, answer(200, canceled))
    record = JobRecord.from_json(QUEUED)
    assert talk.hold(flows.cancel(record, patience)).status == "canceled"
    with pytest.raises(JobAlreadyFinal):
        converse(refusal, answer(200, DONE)).hold(flows.cancel(record, patience))


@pytest.mark.parametrize(("status", "code"), [(404, "NOT_FOUND"), (405, "METHOD_NOT_ALLOWED")])
def test_a_route_that_the_server_has_not_is_said_so(
    status: int, code: str, patience: Patience, converse: Any
) -> None:
    """The client knows more than an older server does."""
    record = JobRecord.from_json(DONE)
    for flow in (flows.models(patience), flows.retry(record, patience), flows.delete(record, patience)):
        with pytest.raises(NotSupported, match="older"):
            converse(answer(status, {"code": code, "status": status})).hold(flow)


def test_a_heat_map_is_waited_for(patience: Patience, converse: Any) -> None:
    """202 while it is being made, then the image; without a link there is none."""
    record = JobRecord.from_json({**DONE, "links": {"heatmap": "/result/a1/heatmap.png"}})
    talk = converse(answer(202, QUEUED, Retry_After="2"), Answer(200, {}, b"\x89PNG"))
    assert talk.hold(flows.heatmap(record, patience)) == b"\x89PNG"
    assert talk.pauses == [2.5]
    with pytest.raises(NotSupported, match="explain"):
        talk.hold(flows.heatmap(JobRecord.from_json(DONE), patience))


def test_a_request_that_asks_about_readiness_is_not_repeated(patience: Patience, converse: Any) -> None:
    """Not being ready is its answer."""
    talk = converse(answer(503, {"code": "NOT_READY", "status": 503, "retryable": True}))
    with pytest.raises(Unavailable):
        talk.hold(flows.ready(patience))
    assert len(talk.requests) == 1


def test_a_reply_to_a_request_is_needed(patience: Patience) -> None:
    """Whoever drives a conversation wrongly is told, instead of going round for ever."""
    flow = exchange(Request("GET", "/"), patience)
    next(flow)
    with pytest.raises(AssertionError):
        flow.send(None)


def job_line(name: str) -> str:
    return json.dumps({"id": f"id-{name}", "status": "succeeded", "custom_id": name})


def page(cursor: int, *names: str, has_more: bool = True) -> Answer:
    """Return so many jobs of a batch that ended."""
    headers = {"X-Next-Cursor": str(cursor), **({"Link": "<x>; rel=next"} if has_more else {})}
    return Answer(200, headers, "\n".join(map(job_line, names)).encode())


BATCH = BatchRecord("b1", {name: f"id-{name}" for name in "abcd"}, {}, {"results": "/batches/b1/results"})


def test_a_batch_is_left_alone_while_it_is_worked_on(clock: Clock, patience: Patience) -> None:
    """For most of what the last one took, then for as long as the rest takes at the rate of lately."""
    replies = [page(0), page(2, "a", "b"), page(4, "c", "d", has_more=False)]
    talk = Conversation(clock, iter(replies))
    ended = talk.hold(flows.wait_for_batch(BATCH, patience, usual_seconds=10.0))
    assert {name: record.id for name, record in ended.items()} == BATCH.jobs
    assert [request.query["cursor"] for request in talk.requests] == ["0", "0", "2"]
    assert talk.pauses == [5.0, 2.0, 2.0]


def test_a_batch_that_is_over_is_not_waited_for(clock: Clock, patience: Patience) -> None:
    """Somebody has deleted one of its jobs: it is not among those that ended."""
    talk = Conversation(clock, iter([page(3, "a", "b", "d", has_more=False)]))
    assert list(talk.hold(flows.wait_for_batch(BATCH, patience, usual_seconds=0.0))) == ["a", "b", "d"]
    assert talk.pauses == []


def test_the_pages_of_a_batch_that_has_ended_are_read_at_once(
    clock: Clock, patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is full says that more is there already, and the last one that nothing is left."""
    monkeypatch.setattr(flows, "BATCH_PAGE", 3)
    talk = Conversation(clock, iter([page(3, "a", "b", "c"), page(4, "d")]))
    assert len(talk.hold(flows.wait_for_batch(BATCH, patience, usual_seconds=0.0))) == 4
    assert talk.pauses == []


def test_a_batch_of_which_some_was_refused_is_sent_again(clock: Clock, patience: Patience) -> None:
    """Under the same key, until nothing is refused for lack of time; what never can be is told."""
    items = [{"custom_id": "a", "id": "id-a"}]
    bad, full = {"custom_id": "b", "code": "INVALID_IMAGE"}, {"custom_id": "c", **FULL}
    answers = [
        {"id": "b1", "items": items, "problems": [bad, full]},
        {"id": "b1", "items": [*items, {"custom_id": "c", "id": "id-c"}], "problems": [bad]},
    ]
    talk = Conversation(clock, (Answer(202, {}, json.dumps(body).encode()) for body in answers))
    batch = talk.hold(flows.submit_batch([], {}, "key", patience))
    assert (set(batch.jobs), set(batch.problems)) == ({"a", "c"}, {"b"})
    assert [request.headers["Idempotency-Key"] for request in talk.requests] == ["key", "key"]
    assert len(talk.pauses) == 1


def test_a_batch_that_stays_refused_is_given_up(clock: Clock, patience: Patience) -> None:
    """After the client's patience, with the reason of the item."""
    body = {"id": "b1", "items": [], "problems": [{"custom_id": "c", **FULL}]}
    answers = (Answer(202, {}, json.dumps(body).encode()) for _ in itertools.count())
    with pytest.raises(QueueFull):
        Conversation(clock, answers).hold(flows.submit_batch([], {}, "key", patience))
    assert clock.now <= 60


@pytest.mark.parametrize(
    "body", [b"[1]", b'{"id": "b1", "items": [{}]}', b'{"id": "b1", "links": [1]}', b"<html>"]
)
def test_an_answer_that_is_no_batch_is_said_to_be_none(clock: Clock, patience: Patience, body: bytes) -> None:
    """It is of something else than this API."""
    with pytest.raises(UnexpectedAnswer):
        Conversation(clock, iter([Answer(202, {}, body)])).hold(flows.submit_batch([], {}, "k", patience))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html>", {}),
        (b"[" * 100_000, {}),
        (b"", {"Link": "<more>"}),
        (b"", {"Link": "<more>", "X-Next-Cursor": "on"}),
    ],
)
def test_a_page_that_is_no_page_is_said_to_be_none(
    clock: Clock, patience: Patience, body: bytes, headers: dict[str, str]
) -> None:
    """As above; so is one that does not say where the next begins."""
    with pytest.raises(UnexpectedAnswer):
        Conversation(clock, iter([Answer(200, headers, body)])).hold(
            flows.wait_for_batch(BATCH, patience, usual_seconds=0.0)
        )
