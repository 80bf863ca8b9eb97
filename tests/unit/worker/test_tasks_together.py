"""Messages that wait together: one exchange for all of them, and for each its own end."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from shared.errors import JobStoreUnavailable
from shared.job_store import Ending
from shared.schemas import Job, JobStatus, new_job_id
from tests.unit.worker.conftest import World
from worker.attempt import Message
from worker.reaper import reap_once
from worker.supervisor import Outcome


class Exchanges:
    """Counts how many jobs each call of the ledger was about."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.claimed: list[int] = []
        self.ended: list[int] = []
        jobs = world.services.jobs
        claim_all, end_all = jobs.claim_all, jobs.end_all

        def claims(tokens: Mapping[str, str], *rest: Any) -> dict[str, Job]:
            self.claimed.append(len(tokens))
            return claim_all(tokens, *rest)

        def ends(endings: Sequence[Ending]) -> list[bool]:
            self.ended.append(len(endings))
            return end_all(endings)

        monkeypatch.setattr(jobs, "claim_all", claims)
        monkeypatch.setattr(jobs, "end_all", ends)


def take_together(world: World, job_ids: Sequence[str]) -> list[str]:
    """Have these messages come while another group is being claimed; return the ids as they end."""
    ended: list[str] = []
    with world.runner._claiming:
        for job_id in job_ids:
            world.runner.take(Message(job_id, ended=partial(ended.append, job_id)))
    return ended


def test_messages_that_wait_together_are_claimed_and_ended_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One exchange for four claims, one for what one micro-batch gave."""
    jobs = [world.accept(b"tile %d" % number) for number in range(4)]
    exchanges = Exchanges(world, monkeypatch)
    # The engine gets nothing before it can get all of it.
    may_begin = threading.Event()
    world.runner.run(blocker := world.accept(b"first"))
    world.engine.during = lambda: may_begin.wait(10)
    world.runner.take(Message(world.accept(b"busy")))
    while len(world.engine.runs) < 2:
        time.sleep(0.001)
    ended = take_together(world, jobs)
    while len(world.runner.batcher._waiting) < len(jobs):
        time.sleep(0.001)
    may_begin.set()
    world.runner.stop()
    assert sorted(ended) == sorted(jobs)
    assert exchanges.claimed == [1, 1, 4]
    assert sum(exchanges.ended) == 6
    # With the one before them, if that was still to be written.
    assert max(exchanges.ended) >= 4
    for job_id in (blocker, *jobs):
        assert world.job(job_id).status == JobStatus.SUCCEEDED


def test_in_a_group_each_has_its_own_end(world: World) -> None:
    """A good one, a bad one, one that is gone, one unknown, one twice, one that is no id."""
    good, bad, gone, twice = (world.accept(image) for image in (b"good", b"bad", b"gone", b"twice"))
    world.services.objects.delete(world.key(gone))
    group = [good, bad, gone, new_job_id(), twice, twice, "no id"]
    ended = take_together(world, group)
    world.runner.stop()
    assert sorted(ended) == sorted(group)
    assert [world.job(job_id).status for job_id in (good, bad, gone, twice)] == [
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.FAILED,
        JobStatus.SUCCEEDED,
    ]
    assert world.job(twice).attempt == 1
    assert not world.runner.leases._leases


def test_one_that_crashes_the_engine_spoils_no_other_of_its_group(world: World) -> None:
    """It is alone at fault, and alone in its end."""
    good = [world.accept(b"good %d" % number) for number in range(3)]
    poison = world.accept(b"crash")
    take_together(world, [good[0], poison, *good[1:]])
    world.runner.stop()
    assert [world.job(job_id).status for job_id in good] == [JobStatus.SUCCEEDED] * 3
    assert world.job(poison).status == JobStatus.FAILED


def test_one_whose_heat_map_is_stored_slowly_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were answered together; the other one ends at once."""
    slow, good = world.accept(b"slow", explain=True), world.accept(b"good")
    may_store = threading.Event()
    put = world.services.objects.put

    def put_slowly(key: str, body: bytes, content_type: str) -> None:
        assert may_store.wait(10)
        put(key, body, content_type)

    monkeypatch.setattr(world.services.objects, "put", put_slowly)
    monkeypatch.setattr(world.runner._answered, "_call", lambda: None)
    ended = take_together(world, [slow, good])
    while len(world.runner._answered._items) < 2:
        time.sleep(0.001)
    world.runner._pool.submit(world.runner._conclude_answered)
    until = time.monotonic() + 5
    while not ended and time.monotonic() < until:
        time.sleep(0.001)
    assert ended == [good]
    may_store.set()
    world.runner.stop()
    assert ended == [good, slow]
    assert world.job(slow).status == JobStatus.SUCCEEDED


def test_a_bug_in_one_outcome_spoils_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job is found by its lease; every message is answered for."""
    broken, good = world.accept(b"broken"), world.accept(b"good")
    keep = world.runner._keep_heatmap

    def keep_or_not(job: Job, *rest: Any) -> None:
        if job.id == broken:
            raise KeyError("a bug")
        keep(job, *rest)

    monkeypatch.setattr(world.runner, "_keep_heatmap", keep_or_not)
    ended = take_together(world, [broken, good])
    world.runner.stop()
    assert sorted(ended) == sorted([broken, good])
    assert world.job(good).status == JobStatus.SUCCEEDED
    assert world.job(broken).status == JobStatus.RUNNING
    assert not world.runner.leases._leases
    monkeypatch.undo()
    world.now_ms += 16_000
    assert reap_once(world.services.jobs, world.services.queue) == 1


def test_a_ledger_that_is_away_leaves_no_message_unanswered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where the jobs cannot be claimed nor where a bug is in the way."""
    for error in (JobStoreUnavailable("away"), KeyError("a bug")):
        jobs = [world.accept(b"tile"), world.accept(b"tile")]

        def away(*_: object, error: Exception = error) -> dict[str, Job]:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(world.services.jobs, "claim_all", away)
            ended = take_together(world, jobs)
            while len(ended) < len(jobs):
                time.sleep(0.001)
        assert [world.job(job_id).status for job_id in jobs] == [JobStatus.QUEUED] * 2


def test_images_from_a_server_are_fetched_side_by_side(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow server costs a group as long as one image, not as long as all of them."""
    both = threading.Barrier(2, timeout=10)
    get = world.services.objects.get

    def together(key: str, max_bytes: int) -> bytes:
        both.wait()
        return get(key, max_bytes)

    monkeypatch.setattr(world.services.objects, "get", together)
    monkeypatch.setattr(world.runner, "_fetchers", ThreadPoolExecutor(2))
    jobs = [world.accept(b"tile"), world.accept(b"tile")]
    take_together(world, jobs)
    world.runner.stop()
    assert [world.job(job_id).status for job_id in jobs] == [JobStatus.SUCCEEDED] * 2


def test_an_outcome_that_cannot_be_written_spoils_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that the ledger makes an error of: the others end at once, and it alone is tried again."""
    broken, refused, good = (world.accept(image) for image in (b"broken", b"refused", b"good"))
    exchanges = Exchanges(world, monkeypatch)
    end_all, answer = world.services.jobs.end_all, world.runner._answer

    def ends(endings: Sequence[Ending]) -> list[bool | Exception]:
        is_first = not exchanges.ended
        return [
            JobStoreUnavailable("WRONGTYPE") if is_first and ending.job_id == refused else said
            for ending, said in zip(endings, end_all(endings), strict=True)
        ]

    def answers(run: Any) -> Outcome:
        outcome = answer(run)
        return {"result": {"value": object()}} if run.job.id == broken else outcome

    monkeypatch.setattr(world.services.jobs, "end_all", ends)
    monkeypatch.setattr(world.runner, "_answer", answers)
    monkeypatch.setattr(world.runner._answered, "_call", lambda: None)
    ended = take_together(world, [broken, refused, good])
    while len(world.runner._answered._items) < 3:
        time.sleep(0.001)
    world.runner._pool.submit(world.runner._conclude_answered)
    world.runner.stop()
    assert sorted(ended) == sorted([broken, refused, good])
    assert world.job(broken).status == JobStatus.RUNNING
    assert [world.job(job_id).status for job_id in (refused, good)] == [JobStatus.SUCCEEDED] * 2
    assert exchanges.ended == [3, 1]
