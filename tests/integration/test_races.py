"""Many requests want something of one job in the same moment: each gets a true answer."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from tests.stack import Stack, png

pytestmark = pytest.mark.integration

Answer = TypeVar("Answer")


def at_once(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Make all calls from threads that are let go together; return their answers in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Answer]) -> Answer:
        barrier.wait(30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_one_idempotency_key_from_fifty_threads_makes_one_job(stack: Stack, tile: bytes) -> None:
    """Each is told of the same job, and all but one that it repeats."""
    before = stack.client.get("/metrics").text
    answers = at_once([lambda: stack.submit(tile, **{"Idempotency-Key": "fifty at once"})] * 50)
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Counter(answer.headers.get("Idempotency-Replayed") for answer in answers) == {"true": 49, None: 1}
    assert stack.finish(answers[0].headers["Location"])["attempt"] == 1
    assert _accepted(stack.client.get("/metrics").text) - _accepted(before) == 1


def _accepted(metrics: str) -> float:
    (line,) = [line for line in metrics.splitlines() if line.startswith("histoqueue_jobs_accepted_total ")]
    return float(line.split()[1])


def test_a_job_is_canceled_or_has_a_result_and_never_both(stack: Stack) -> None:
    """200 or 202 to a cancellation is a promise, 409 says that it came too late."""
    paths = [stack.accept(png(seed)) for seed in range(40)]
    answers = at_once([lambda path=path: stack.client.post(f"{path}/cancel") for path in paths])  # type: ignore[misc]
    for path, answer in zip(paths, answers, strict=True):
        ended = stack.finish(path)["status"]
        expected = {200: "canceled", 202: "canceled", 409: "succeeded"}
        assert ended == expected[answer.status_code], answer.text
    again = [stack.client.get(path).json() for path in paths]
    assert all((job["result"] is None) == (job["status"] == "canceled") for job in again)


def test_a_job_that_is_deleted_while_it_is_read_is_read_or_gone(stack: Stack) -> None:
    """Never unknown, never half; and gone for good once one deletion was answered."""
    path = stack.accept(png(99))
    stack.finish(path)
    calls: list[Callable[[], Any]] = [lambda: stack.client.get(path)] * 20
    calls[10:10] = [lambda: stack.client.delete(path)] * 3
    answers = at_once(calls)
    assert {answer.status_code for answer in answers} <= {200, 204, 410}
    assert [answer.status_code for answer in answers].count(204) == 3
    assert all(answer.json()["result"] for answer in answers if answer.status_code == 200)
    assert stack.client.get(path).status_code == 410


def test_jobs_deleted_while_a_worker_takes_them_up_leave_it_well(stack: Stack, tile: bytes) -> None:
    """Their images vanish under it; they stay gone, and the next job is done."""
    paths = [stack.accept(png(seed)) for seed in range(40)]
    answers = at_once([lambda path=path: stack.client.delete(path) for path in paths])  # type: ignore[misc]
    assert {answer.status_code for answer in answers} == {204}
    assert stack.finish(stack.accept(tile))["status"] == "succeeded"
    assert {stack.client.get(path).status_code for path in paths} == {410}


def test_a_canceled_job_that_many_retry_is_queued_once(stack: Stack, tile: bytes) -> None:
    """One of them brings it back; the others are told that it is open, or done by now."""
    engine = stack.engine()
    engine.suspend()
    path = stack.accept(tile)
    assert stack.client.post(f"{path}/cancel").json()["status"] == "canceled"
    engine.resume()
    answers = at_once([lambda: stack.client.post(f"{path}/retry")] * 20)
    assert Counter(answer.status_code for answer in answers) == {202: 1, 409: 19}
    assert stack.finish(path)["status"] == "succeeded"
