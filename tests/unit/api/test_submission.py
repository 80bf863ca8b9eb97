"""Idempotency, admission, and what stays behind when something is away."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from api import create_app, submission
from ops.processes import wait_until
from shared.errors import JobStoreUnavailable, ObjectStoreUnavailable
from shared.job_store_memory import MemoryJobStore
from shared.services import Services
from shared.settings import Settings
from tests.factories import jpeg_bytes
from tests.work import Clock

Submit = Callable[..., Any]
Finish = Callable[[str], None]
KEY = {"Idempotency-Key": "7f1c"}


class Failing:
    """Any service whose named methods raise; the others are passed on."""

    def __init__(self, inner: object, error: Exception, *names: str) -> None:
        self._inner, self._error, self._names = inner, error, names

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            return self._fail
        return getattr(self._inner, name)

    def _fail(self, *_args: object, **_options: object) -> None:
        raise self._error


def post(app: Flask, **options: Any) -> Any:
    """Submit a tile to this application."""
    return app.test_client().post("/predict", data=jpeg_bytes(), content_type="image/jpeg", **options)


def test_a_repeated_request_gets_the_job_of_the_first(
    submit: Submit, services: Services, finish: Finish
) -> None:
    """As it stands now: 202 while it is open, 200 once it is final; the image is stored once."""
    first = submit(headers=KEY)
    again = submit(headers=KEY)
    assert "Idempotency-Replayed" not in first.headers
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.get_json()["id"] == first.get_json()["id"]
    finish(first.get_json()["id"])
    last = submit(headers=KEY)
    assert (last.status_code, last.get_json()["status"]) == (200, "succeeded")
    assert len(services.objects.list_keys("uploads/")) == 1
    assert len(services.queue.messages) == 1  # type: ignore[attr-defined]


def test_the_same_options_in_another_form_are_the_same_request(submit: Submit) -> None:
    """Order, spelling and place of the options do not matter."""
    first = submit(path="/predict?mpp=0.50&custom_id=a", headers=KEY)
    again = submit(path="/predict?custom_id=a&mpp=0.5", headers=KEY)
    assert again.get_json()["id"] == first.get_json()["id"]


@pytest.mark.parametrize("change", ["image", "option"])
def test_a_key_with_another_request_is_refused(submit: Submit, services: Services, change: str) -> None:
    """422, and nothing is stored for it."""
    assert submit(headers=KEY).status_code == 202
    other = (
        submit(jpeg_bytes(seed=1), headers=KEY)
        if change == "image"
        else submit(path="/predict?mpp=1", headers=KEY)
    )
    assert (other.status_code, other.get_json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert len(services.objects.list_keys("uploads/")) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\tb"])
def test_a_key_that_cannot_be_one_is_malformed(submit: Submit, key: str) -> None:
    """1 to 255 printable ASCII characters are expected."""
    assert submit(headers={"Idempotency-Key": key}).status_code == 400


def test_two_equal_requests_at_once_make_one_job(
    services: Services, settings: Settings, submit: Submit
) -> None:
    """The second finds the first only in the ledger's own call, and takes its image back."""
    first = submit(headers=KEY).get_json()["id"]
    blind = Failing(services.jobs, RuntimeError(), "nothing")
    blind.find_replay = lambda _: None  # type: ignore[attr-defined]
    answer = post(create_app(replace(services, jobs=blind), settings), headers=KEY)
    assert (answer.status_code, answer.headers["Idempotency-Replayed"]) == (202, "true")
    assert answer.get_json()["id"] == first
    assert len(services.objects.list_keys("uploads/")) == 1


def test_a_key_that_another_request_uses_in_this_moment_leaves_no_image(
    services: Services, settings: Settings, submit: Submit
) -> None:
    """The ledger's own call finds it; that refusal is certain, too."""
    submit(jpeg_bytes(seed=1), headers=KEY)
    blind = Failing(services.jobs, RuntimeError(), "nothing")
    blind.find_replay = lambda _: None  # type: ignore[attr-defined]
    answer = post(create_app(replace(services, jobs=blind), settings), headers=KEY)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert len(services.objects.list_keys("uploads/")) == 1


def test_a_full_queue_refuses_and_says_when_to_come_back(
    submit: Submit, services: Services, finish: Finish
) -> None:
    """429 from the first job too many, with the numbers; a known key is still answered."""
    jobs = [submit(headers={"Idempotency-Key": str(number)}).get_json()["id"] for number in range(5)]
    answer = submit()
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (429, "QUEUE_FULL")
    assert (problem["queue_depth"], problem["limit"], problem["retryable"]) == (5, 5, True)
    assert answer.headers["Retry-After"] == "30"
    assert len(services.objects.list_keys("uploads/")) == 5
    assert submit(headers={"Idempotency-Key": "0"}).status_code == 202
    finish(jobs[0])
    assert submit().status_code == 202
    # One job has ended within the last minute.
    assert submit().headers["Retry-After"] == "30"


def test_a_full_queue_is_seen_before_the_image_is_stored(services: Services, settings: Settings) -> None:
    """As long as it is full, every client comes back with its image."""
    objects = Failing(services.objects, ObjectStoreUnavailable("The object store does not answer."), "put")
    full = settings.model_copy(update={"max_open_jobs": 0})
    assert post(create_app(replace(services, objects=objects), full)).status_code == 429


def test_a_queue_that_fills_while_the_image_is_stored_leaves_no_image(
    services: Services, settings: Settings
) -> None:
    """The ledger has the last word; its refusal is certain, so the image goes."""
    full = create_app(services, settings.model_copy(update={"max_open_jobs": 0}))
    optimist = Failing(services.jobs, RuntimeError(), "nothing")
    optimist.admission = lambda *_: services.jobs.admission(None).model_copy(update={"open": -1})  # type: ignore[attr-defined]
    late = create_app(replace(services, jobs=optimist), settings.model_copy(update={"max_open_jobs": 0}))
    for app in (full, late):
        answer = post(app)
        assert (answer.status_code, answer.get_json()["code"]) == (429, "QUEUE_FULL")
    assert services.objects.list_keys("uploads/") == []


@pytest.mark.parametrize("method", ["find_replay", "admission"])
def test_without_the_ledger_nothing_is_stored(services: Services, settings: Settings, method: str) -> None:
    """503 before the image goes anywhere."""
    jobs = Failing(services.jobs, JobStoreUnavailable("The job store does not answer."), method)
    answer = post(create_app(replace(services, jobs=jobs), settings), headers=KEY)
    assert (answer.status_code, answer.get_json()["code"]) == (503, "JOB_STORE_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) >= 1
    assert services.objects.list_keys("uploads/") == []


def test_a_ledger_that_goes_away_in_between_keeps_the_image(services: Services, settings: Settings) -> None:
    """Its answer may have been lost after the job was recorded, and that job needs its image."""
    jobs = Failing(services.jobs, JobStoreUnavailable("The job store does not answer."), "create")
    answer = post(create_app(replace(services, jobs=jobs), settings))
    assert answer.status_code == 503
    assert services.jobs.depth().open == 0
    assert len(services.objects.list_keys("uploads/")) == 1
    assert not services.queue.messages  # type: ignore[attr-defined]


def test_without_the_object_store_nothing_is_recorded(services: Services, settings: Settings) -> None:
    """503, no job and no message."""
    objects = Failing(services.objects, ObjectStoreUnavailable("The object store does not answer."), "put")
    answer = post(create_app(replace(services, objects=objects), settings))
    assert (answer.status_code, answer.get_json()["code"]) == (503, "OBJECT_STORE_UNAVAILABLE")
    assert services.jobs.depth().open == 0
    assert not services.queue.messages  # type: ignore[attr-defined]


def test_a_new_installation_is_whole_before_its_first_upload(
    services: Services, settings: Settings, clock: Clock
) -> None:
    """After that only a comparison could tell that there is nothing to rebuild."""
    jobs = MemoryJobStore(clock, founded=False)
    assert post(create_app(replace(services, jobs=jobs), settings)).status_code == 202
    assert jobs.is_founded()


def test_without_a_model_nothing_is_accepted(bare_services: Services, settings: Settings) -> None:
    """503: a job would have no version to be pinned to."""
    answer = post(create_app(bare_services, settings))
    assert (answer.status_code, answer.get_json()["code"]) == (503, "NO_MODEL")
    assert bare_services.objects.list_keys("uploads/") == []


def test_a_ledger_that_took_long_is_enough(
    submit: Submit, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a store that hangs on top, the answer would come too late: nothing is stored."""
    times = iter([0.0, submission.LATEST_STORE_SECONDS + 0.1])
    monkeypatch.setattr(submission, "monotonic", lambda: next(times))
    answer = submit()
    assert (answer.status_code, answer.get_json()["code"]) == (503, "JOB_STORE_UNAVAILABLE")
    assert services.objects.list_keys("uploads/") == []


def test_an_image_that_took_long_to_store_is_refused_and_removed(
    submit: Submit, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a Redis that hangs on top, the answer would come too late: nothing is recorded."""
    times = iter([0.0, 0.1, submission.LATEST_RECORD_SECONDS + 0.1])
    monkeypatch.setattr(submission, "monotonic", lambda: next(times))
    answer = submit()
    assert (answer.status_code, answer.get_json()["code"]) == (503, "OBJECT_STORE_UNAVAILABLE")
    assert answer.headers["Retry-After"]
    assert wait_until(lambda: services.objects.list_keys("uploads/") == [], 10)
    assert services.jobs.depth().open == 0
