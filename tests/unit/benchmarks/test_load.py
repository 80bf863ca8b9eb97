import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from benchmarks.load import Loop, Report, Send

Value = TypeVar("Value")


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time: with nothing ready, its clock jumps to the next timer."""

    now = 0.0

    def time(self) -> float:
        """Return the virtual clock."""
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run(scenario: Callable[[VirtualTime], Awaitable[Value]]) -> Value:
    loop = VirtualTime()
    try:
        return loop.run_until_complete(scenario(loop))
    finally:
        loop.close()


def one_at_a_time(service_seconds: Callable[[], float]) -> Send:
    """A server that answers one tile after the other."""
    lock = asyncio.Lock()

    async def send(number: int) -> list[float]:
        async with lock:
            await asyncio.sleep(service_seconds())
        return [float(number)]

    return send


def test_an_open_loop_sends_on_time_whatever_the_server_does() -> None:
    """A tile is due every 1/rate seconds, also while nothing is answered."""

    async def scenario(loop: VirtualTime) -> list[float]:
        sent: list[float] = []

        async def send(number: int) -> list[float]:
            sent.append(loop.time())
            await asyncio.sleep(100)
            return []

        await Loop(send, 1, loop.time).open(rate=10, seconds=2)
        return sent

    assert run(scenario) == pytest.approx([number / 10 for number in range(20)])


def test_a_stall_is_booked_to_every_tile_that_was_due_meanwhile() -> None:
    """No coordinated omission: a server that stalls for a second makes a hundred tiles late, not one."""

    async def scenario(loop: VirtualTime) -> Report:
        stalls = iter([1.0])
        send = one_at_a_time(lambda: next(stalls, 0.0))
        return await Loop(send, 4, loop.time).open(rate=100, seconds=2)

    report = run(scenario)
    late = [seconds for seconds in report.latencies if seconds > 0.001]
    assert len(report.latencies) == 200
    assert len(late) == pytest.approx(100, abs=1)
    assert max(late) == pytest.approx(1.0)
    assert sum(late) / len(late) == pytest.approx(0.5, abs=0.01)


def test_an_overloaded_server_shows_a_growing_queue() -> None:
    """At twice what it can do, the last tile waits half as long as the whole load took to be sent."""

    async def scenario(loop: VirtualTime) -> Report:
        return await Loop(one_at_a_time(lambda: 0.1), 4, loop.time).open(rate=20, seconds=5)

    report = run(scenario)
    assert max(report.latencies) == pytest.approx(5, abs=0.2)
    assert len(report.latencies) / (report.ended - report.began) == pytest.approx(10, abs=0.2)


def test_a_client_that_runs_out_of_room_says_how_late_it_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the wait for room counts as the tile's latency."""
    monkeypatch.setattr("benchmarks.load.MOST_IN_FLIGHT", 1)

    async def scenario(loop: VirtualTime) -> Report:
        return await Loop(one_at_a_time(lambda: 1.0), 1, loop.time).open(rate=10, seconds=0.3)

    report = run(scenario)
    assert report.sent_late == pytest.approx(1.8)
    assert report.latencies == pytest.approx([1.0, 1.9, 2.8])


def test_a_closed_loop_keeps_so_many_tiles_under_way() -> None:
    """Each client sends when its last tile is answered."""

    async def scenario(loop: VirtualTime) -> tuple[Report, int]:
        under_way = peak = 0

        async def send(number: int) -> list[float]:
            nonlocal under_way, peak
            under_way += 1
            peak = max(peak, under_way)
            await asyncio.sleep(0.1)
            under_way -= 1
            return [float(number)]

        return await Loop(send, 5, loop.time).closed(clients=4, seconds=1.95), peak

    report, peak = run(scenario)
    assert peak == 4
    assert len(report.latencies) == 80
    assert report.answers == {number: [float(number)] for number in range(5)}


def test_a_failure_is_a_failure_and_no_latency() -> None:
    """It is told, and its client goes on after a moment."""

    async def scenario(loop: VirtualTime) -> Report:
        async def send(number: int) -> list[float]:
            if number == 0:
                raise ConnectionError("gone")
            return [1.0]

        return await Loop(send, 2, loop.time).open(rate=10, seconds=1)

    report = run(scenario)
    assert len(report.failures) == 5
    assert report.failures[0] == "ConnectionError: gone"
    assert len(report.latencies) == 5
