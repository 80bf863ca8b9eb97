"""`?wait=` and `Prefer: wait=` hold an answer back, within bounds."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from flask import Flask, Request
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder

from api import create_app, events
from api.context import context
from api.preferences import Wait, preferred_wait
from shared.errors import JobStoreUnavailable
from shared.job_store import Change, JobStore
from shared.schemas import Job, JobError, JobStatus
from shared.services import Services
from shared.settings import Settings
from tests import factories as make
from tests.work import claim, fail, succeed

Submit = Callable[..., Any]
Finish = Callable[[str], None]


@pytest.fixture(autouse=True)
def listeners_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener leaves right after its last waiter."""
    monkeypatch.setattr(events, "LINGER_SECONDS", 0.0)


def later(seconds: float, act: Callable[[], object]) -> threading.Timer:
    """Do something while the test waits."""
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ("WAIT=10", 10),
        ('wait="10"', 10),
        ("wait = 10 ; foo=bar", 10),
        ("wait=5, wait=9", 5),
        ("wait=3600", 30),
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=ten", 0),
        ("wait=1.5", 0),
        ("wait", 0),
        ("return=minimal", 0),
        ('foo="a, wait=9"', 0),
        ("", 0),
        (",,;=", 0),
    ],
)
def test_prefer_is_read_as_a_list(header: str, seconds: int) -> None:
    """As RFC 7240 has it; what is malformed is ignored."""
    request = Request(EnvironBuilder(headers={"Prefer": header}).get_environ())
    assert preferred_wait(request).seconds == seconds


def test_a_waiting_request_is_answered_as_its_job_ends(
    submit: Submit, client: FlaskClient, finish: Finish
) -> None:
    """Long before the time is up, by the notice and not by looking again and again."""
    job_id = submit().get_json()["id"]
    began = time.monotonic()
    timer = later(0.3, lambda: finish(job_id))
    answer = client.get(f"/result/{job_id}?wait=20")
    timer.join()
    assert (answer.status_code, answer.get_json()["status"]) == (200, "succeeded")
    assert time.monotonic() - began < 1.9
    assert "Preference-Applied" not in answer.headers


def test_a_submission_can_wait_for_its_result(submit: Submit, services: Services, finish: Finish) -> None:
    """200 with the result, saying that the preference was applied."""

    def work() -> None:
        while not services.queue.messages:  # type: ignore[attr-defined]
            time.sleep(0.01)
        finish(services.queue.messages[0][0])  # type: ignore[attr-defined]

    timer = later(0.05, work)
    answer = submit(headers={"Prefer": "respond-async, wait=20"})
    timer.join()
    assert (answer.status_code, answer.get_json()["status"]) == (200, "succeeded")
    assert answer.headers["Preference-Applied"] == "wait=20"


def test_a_wait_that_is_not_met_is_an_ordinary_202(submit: Submit, client: FlaskClient) -> None:
    """Never a time-out: the job goes on."""
    answer = submit(headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers
    began = time.monotonic()
    assert client.get(f"/result/{answer.get_json()['id']}?wait=0.2").status_code == 202
    assert 0.2 <= time.monotonic() - began < 1.5


class Slow(io.BytesIO):
    """A body of which a read takes a second."""

    def read(self, size: int | None = -1) -> bytes:
        """Read."""
        time.sleep(1)
        return super().read(size)


def test_an_upload_that_took_long_leaves_less_time_to_wait(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection would be ended before the answer, and nobody would know of the job."""
    monkeypatch.setattr("api.jobs.LATEST_ANSWER_SECONDS", 1.0)
    image = make.jpeg_bytes()
    began = time.monotonic()
    answer = client.post(
        "/predict",
        input_stream=Slow(image),
        content_length=len(image),
        content_type="image/jpeg",
        headers={"Prefer": "wait=3"},
    )
    assert answer.status_code == 202
    assert time.monotonic() - began < 1.5


def test_after_a_wait_the_place_in_the_queue_is_the_present_one(submit: Submit, finish: Finish) -> None:
    """The one ahead has ended meanwhile."""
    first = submit().get_json()["id"]
    timer = later(0.2, lambda: finish(first))
    answer = submit(headers={"Prefer": "wait=1"})
    timer.join()
    assert answer.status_code == 202
    assert answer.get_json()["queue"]["position"] == 0


@pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "1e3", "1,5"])
def test_a_wait_that_is_no_number_is_refused_in_the_query(
    submit: Submit, client: FlaskClient, value: str
) -> None:
    """A query is a request, and not a preference."""
    job_id = submit().get_json()["id"]
    assert client.get(f"/result/{job_id}?wait={value}").status_code == 400


def test_over_the_bound_of_waiting_requests_the_answer_comes_at_once(submit: Submit, app: Flask) -> None:
    """Those that wait already are not disturbed."""
    job_id = submit().get_json()["id"]
    codes: list[int] = []

    def wait() -> None:
        codes.append(app.test_client().get(f"/result/{job_id}?wait=1.5").status_code)

    waiting = [threading.Thread(target=wait) for _ in range(2)]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert app.test_client().get(f"/result/{job_id}?wait=20").status_code == 202
    assert time.monotonic() - began < 0.5
    for thread in waiting:
        thread.join()
    assert codes == [202, 202]


def test_a_key_that_has_taken_every_seat_gives_one_to_another(submit: Submit, services: Services) -> None:
    """The one that has waited longest is answered; a key that has as many seats as others gets no more."""
    room = events.WaitingRoom(services.jobs, 2)
    ids = [submit().get_json()["id"] for _ in range(3)]
    jobs = [services.jobs.get(job_id) for job_id in ids]
    answered: list[str] = []

    def wait(job: Job, owner: str) -> threading.Thread:
        def run() -> None:
            answered.append(room.until_final(job, 30, owner).id)

        thread = threading.Thread(target=run)
        thread.start()
        until = time.monotonic() + 5
        while job.id not in room._waiters and time.monotonic() < until:
            time.sleep(0.01)
        assert job.id in room._waiters
        return thread

    first, second = wait(jobs[0], "greedy"), wait(jobs[1], "greedy")
    third = wait(jobs[2], "other")
    first.join(5)
    assert answered == [ids[0]]
    assert room.until_final(jobs[0], 30, "greedy") == jobs[0]
    assert [seen and seen.id for seen in room.follow(jobs[0], "other")] == [ids[0]]
    for job_id in ids[1:]:
        services.jobs.cancel(job_id)
    second.join(5)
    third.join(5)
    assert sorted(answered) == sorted(ids)
    assert room._waiters == {}


def test_a_stream_gives_its_seat_to_another_key(submit: Submit, services: Services) -> None:
    """It ends, and its client comes again."""
    room = events.WaitingRoom(services.jobs, 2)
    job = services.jobs.get(submit().get_json()["id"])
    followers = [threading.Thread(target=list, args=(room.follow(job, "greedy"),)) for _ in range(2)]
    for follower in followers:
        follower.start()
    until = time.monotonic() + 5
    while len(room._waiters.get(job.id, ())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    timer = later(0.2, partial(services.jobs.cancel, job.id))
    assert room.until_final(job, 30, "other").status == "canceled"
    for thread in (*followers, timer):
        thread.join()


def test_only_the_end_of_its_job_wakes_a_waiter(
    submit: Submit, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look is a read of the record: one as it begins to listen; the notice of the end has all of it."""
    monkeypatch.setattr(events, "LINGER_SECONDS", 30.0)
    monkeypatch.setattr(events, "REREAD_SECONDS", 0.3)
    ledger = Counting(services.jobs)
    room = events.WaitingRoom(ledger, 10)  # type: ignore[arg-type]
    listening = services.jobs.get(submit().get_json()["id"])
    room.until_final(listening, 0.5)
    monkeypatch.setattr(events, "REREAD_SECONDS", 5.0)
    room._hears_since = time.monotonic() - 6
    job = services.jobs.get(submit().get_json()["id"])
    ledger.reads = 0

    def work() -> None:
        assert claim(services.jobs, job.id)
        time.sleep(0.1)
        succeed(services.jobs, job.id, {})

    timer = later(0.2, work)
    began = time.monotonic()
    assert room.until_final(job, 20).status == "succeeded"
    assert (ledger.reads, time.monotonic() - began < 4) == (0, True)
    timer.join()


def test_a_late_notice_of_an_earlier_end_ends_no_wait(submit: Submit, services: Services) -> None:
    """The job failed, was retried, and succeeds; the word of its failure comes after the retry."""
    job_id = submit().get_json()["id"]
    assert claim(services.jobs, job_id)
    fail(services.jobs, job_id, JobError(code="INVALID_IMAGE", detail="no image"))
    failed = services.jobs.get(job_id)
    job = services.jobs.retry(job_id, max_open=10)
    room = events.WaitingRoom(services.jobs, 10)

    def tell_late() -> None:
        room._wake(Change(job_id, failed.status, lambda: failed), everybody=False)
        time.sleep(0.2)
        assert claim(services.jobs, job_id, "another token")
        succeed(services.jobs, job_id, {}, "another token")

    timer = later(0.2, tell_late)
    assert room.until_final(job, 20).status == "succeeded"
    timer.join()


def test_an_end_between_the_look_and_the_seat_is_not_slept_through(
    submit: Submit, services: Services, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the listener has heard of meanwhile is looked at, at once."""
    monkeypatch.setattr(events, "LINGER_SECONDS", 30.0)
    room = events.WaitingRoom(services.jobs, 10)
    jobs = [services.jobs.get(submit().get_json()["id"]) for _ in range(2)]
    room.until_final(jobs[0], 0.1)
    room._hears_since = time.monotonic() - 60
    finish(jobs[1].id)
    deadline = time.monotonic() + 5
    while jobs[1].id not in room._ended_lately and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    assert room.until_final(jobs[1], 20).status == "succeeded"
    assert time.monotonic() - began < events.REREAD_SECONDS / 2


def test_of_the_ends_that_were_heard_of_the_latest_are_kept(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ended twice, with a retry in between, counts from its second end."""
    monkeypatch.setattr(events, "MOST_ENDED_LATELY", 2)
    room = events.WaitingRoom(services.jobs, 10)
    for job_id in ("a", "b", "a", "c"):
        room._wake(Change(job_id, JobStatus.FAILED), everybody=False)
    assert list(room._ended_lately) == ["a", "c"]


class Counting:
    """A ledger that counts how often a record is read."""

    def __init__(self, inner: JobStore) -> None:
        self._inner = inner
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get(self, job_id: str) -> Job:
        """Count and read."""
        self.reads += 1
        return self._inner.get(job_id)


class Deaf:
    """A ledger whose notices never arrive."""

    def __init__(self, inner: JobStore) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def changes(self) -> Iterator[Change | None]:
        """Fail before the first notice."""
        raise JobStoreUnavailable("away")
        yield None


def test_a_lost_notice_only_costs_time(
    services: Services, settings: Settings, submit: Submit, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every waiter looks for itself now and then."""
    monkeypatch.setattr(events, "REREAD_SECONDS", 0.2)
    monkeypatch.setattr(events, "RECONNECT_SECONDS", 0.05)
    deaf = create_app(replace(services, jobs=Deaf(services.jobs)), settings)  # type: ignore[arg-type]
    job_id = submit().get_json()["id"]
    timer = later(0.2, lambda: finish(job_id))
    began = time.monotonic()
    assert deaf.test_client().get(f"/result/{job_id}?wait=20").status_code == 200
    assert time.monotonic() - began < 2
    timer.join()


def test_a_ledger_that_goes_away_ends_no_wait(
    submit: Submit, services: Services, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a stream: both go on with the job as it was last seen, and see how it ended when it is back."""
    monkeypatch.setattr(events, "REREAD_SECONDS", 0.05)
    monkeypatch.setattr(events, "RECONNECT_SECONDS", 0.05)
    job = services.jobs.get(submit().get_json()["id"])
    room = events.WaitingRoom(Deaf(services.jobs), 10)  # type: ignore[arg-type]
    get, until = services.jobs.get, time.monotonic() + 0.3

    def away_at_first(job_id: str) -> Job:
        if time.monotonic() < until:
            raise JobStoreUnavailable("away")
        return get(job_id)

    monkeypatch.setattr(services.jobs, "get", away_at_first)
    assert room.until_final(job, 0.1) == job
    finish(job.id)
    assert [seen and seen.status for seen in room.follow(job)] == ["queued", "succeeded"]


def test_a_stopping_server_lets_its_waiters_go(submit: Submit, app: Flask) -> None:
    """Their clients ask again elsewhere; the wait does not delay the stop."""
    job_id = submit().get_json()["id"]
    stopping = threading.Event()
    context(app).waiting.stop_when(stopping.is_set)
    timer = later(0.2, stopping.set)
    began = time.monotonic()
    assert app.test_client().get(f"/result/{job_id}?wait=20").status_code == 202
    assert time.monotonic() - began < 2.5
    timer.join()


def test_a_notice_is_looked_at_once(submit: Submit, services: Services) -> None:
    """Whoever waits on after it does so asleep."""
    ledger = Counting(services.jobs)
    room = events.WaitingRoom(ledger, 10)  # type: ignore[arg-type]
    job = services.jobs.get(submit().get_json()["id"])
    # Of an end that a retry has undone since.
    timer = later(0.1, lambda: room._wake(Change(job.id, JobStatus.FAILED), everybody=False))
    assert room.until_final(job, 0.5).status == "queued"
    timer.join()
    assert ledger.reads < 5


def test_who_does_not_wait_takes_no_seat_and_starts_no_listener(
    submit: Submit, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As most requests: they would cost a thread and a subscription."""
    monkeypatch.setattr(events, "LINGER_SECONDS", 30.0)
    job_id = submit().get_json()["id"]
    assert app.test_client().get(f"/result/{job_id}").status_code == 202
    assert context(app).waiting._listener is None


def test_one_listener_serves_all_and_leaves_with_the_last(submit: Submit, app: Flask) -> None:
    """No thread and no subscription is kept for nothing, and the next waiter gets a new one."""

    def listeners() -> int:
        return sum(thread.name == "job-changes" for thread in threading.enumerate())

    def quiet() -> bool:
        until = time.monotonic() + 3
        while listeners() and time.monotonic() < until:
            time.sleep(0.05)
        return listeners() == 0

    assert quiet()
    job_id = submit().get_json()["id"]
    for _ in range(2):
        waiting = [
            threading.Thread(target=lambda: app.test_client().get(f"/result/{job_id}?wait=0.4"))
            for _ in range(2)
        ]
        for thread in waiting:
            thread.start()
        time.sleep(0.2)
        assert listeners() == 1
        for thread in waiting:
            thread.join()
        assert quiet()


def test_a_listener_that_cannot_be_started_takes_no_seat(
    submit: Submit, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may be out of threads for a moment: the room is as large as before."""
    room = events.WaitingRoom(services.jobs, 1)
    job = services.jobs.get(submit().get_json()["id"])

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            room.until_final(job, 1)
    before = time.monotonic()
    room.until_final(job, 0.3)
    assert time.monotonic() - before >= 0.3


def test_a_wish_of_nothing_is_no_wish() -> None:
    """The default is not to wait."""
    assert Wait() == Wait(seconds=0, preferred=False)
