"""A tile that somebody waits for passes a backlog of bulk, and bulk still goes on; with a real worker."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from shared.queue_order import INTERACTIVE_TURNS
from tests.chaos.system import System, running_system
from tests.chaos.tiles import small_tile

pytestmark = pytest.mark.integration

#: More than a worker has in its hands, by far.
BACKLOG = 120
#: A worker's threads: so many bulk jobs it may have begun when the interactive one came.
IN_HAND = 16


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One worker that takes a while over each tile."""
    with running_system(tmp_path_factory.mktemp("priorities"), workers=1, milliseconds_a_tile=40) as running:
        yield running


@pytest.fixture
def client(system: System) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=system.url, timeout=40, trust_env=False) as made:
        yield made


def submit(client: httpx2.Client, number: int, priority: str) -> dict[str, Any]:
    """Submit a tile like no other; return its job."""
    answer = client.post(
        "/predict",
        params={"priority": priority},
        content=small_tile(number).body,
        headers={"Content-Type": "image/png"},
    )
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def ended(client: httpx2.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of a job; return it."""
    for _ in range(6):
        answer = client.get(job["links"]["self"], params={"wait": "30"})
        if answer.status_code == 200:
            final: dict[str, Any] = answer.json()
            assert final["status"] == "succeeded", final
            return final
    raise AssertionError("it did not end")


@contextmanager
def paused(system: System) -> Iterator[None]:
    """Hold the worker up, so that what is submitted meanwhile waits together."""
    system.nursery.signal(system.workers[0], signal.SIGSTOP)
    try:
        yield
    finally:
        system.nursery.signal(system.workers[0], signal.SIGCONT)


def test_an_interactive_tile_passes_a_bulk_backlog(client: httpx2.Client, system: System) -> None:
    """Of all that came before it, no more than a worker has in its hands has begun; its place said so."""
    with paused(system):
        backlog = [submit(client, number, "bulk") for number in range(BACKLOG)]
        urgent = submit(client, 10_000, "interactive")
        assert urgent["queue"]["position"] == 0
    begun_at = ended(client, urgent)["started_at"]
    begun_before = [job for job in backlog if ended(client, job)["started_at"] < begun_at]
    assert len(begun_before) <= IN_HAND


def test_a_bulk_tile_ends_while_interactive_ones_wait(client: httpx2.Client, system: System) -> None:
    """However many came before it: it has its turn after nine of them."""
    with paused(system):
        waiting = [submit(client, number, "interactive") for number in range(20_000, 20_000 + BACKLOG)]
        bulk = submit(client, 30_000, "bulk")
        assert bulk["queue"]["position"] <= INTERACTIVE_TURNS
    ended_at = ended(client, bulk)["finished_at"]
    begun_before = [job for job in waiting if ended(client, job)["started_at"] < ended_at]
    assert len(begun_before) <= INTERACTIVE_TURNS + 2 * IN_HAND
