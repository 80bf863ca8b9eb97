"""Load on a system: a fixed number of clients, or a fixed rate whatever the system does.

    python -m benchmarks.load < order.json > report.json

A process of its own, so that what the client costs is told apart from what the server costs.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.arguments import read_numbers

#: What sends the tile of this number and returns its probabilities.
Send = Callable[[int], Awaitable[list[float]]]
#: A client that the system keeps waiting holds one of these; more would only measure the client.
MOST_IN_FLIGHT = 512


@dataclass
class Report:
    """What came of a load."""

    began: float = 0.0
    ended: float = 0.0
    #: Seconds from when the tile was due to its answer.
    latencies: list[float] = field(default_factory=list)
    #: Answers by the tile's number, the last one each.
    answers: dict[int, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    #: How late the last sent tile was, in seconds: a client that cannot keep up spoils an open loop.
    sent_late: float = 0.0
    #: What this process itself used meanwhile.
    cpu_seconds: float = 0.0


class Loop:
    """Drives `send`; a clock and a sleep of its own make it testable without waiting."""

    def __init__(
        self,
        send: Send,
        tiles: int,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`tiles` is how many different tiles are sent in turn."""
        self._send = send
        self._tiles = tiles
        self._clock = clock
        self._sleep = sleep
        self._number = 0

    async def closed(self, clients: int, seconds: float) -> Report:
        """Have each of so many clients send its next tile when its last one is answered."""
        report = Report(began=self._clock())
        end = report.began + seconds

        async def client() -> None:
            while self._clock() < end:
                await self._one(report, self._clock())

        await asyncio.gather(*(client() for _ in range(clients)))
        report.ended = self._clock()
        return report

    async def open(self, rate: float, seconds: float) -> Report:
        """Send at this rate (tiles a second) whether or not anything is answered.

        Latency counts from when a tile was due. Were it to count from when it could be sent, a system that
        stalls would hide its stall behind the tiles that nobody sent meanwhile.
        """
        report = Report(began=self._clock())
        room = asyncio.Semaphore(MOST_IN_FLIGHT)
        running: set[asyncio.Task[None]] = set()

        async def one(due: float) -> None:
            try:
                await self._one(report, due)
            finally:
                room.release()

        for number in range(round(rate * seconds)):
            due = report.began + number / rate
            if (early := due - self._clock()) > 0:
                await self._sleep(early)
            await room.acquire()
            report.sent_late = max(0.0, self._clock() - due)
            task = asyncio.create_task(one(due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        report.ended = self._clock()
        return report

    async def _one(self, report: Report, due: float) -> None:
        number = self._number % self._tiles
        self._number += 1
        try:
            answer = await self._send(number)
        except Exception as error:  # noqa: BLE001 - whatever it is, the tile has no answer, and that is reported
            report.failures.append(f"{type(error).__name__}: {error}"[:200])
            # A system that refuses at once would otherwise be asked in a tight loop.
            await self._sleep(0.05)
        else:
            report.latencies.append(self._clock() - due)
            report.answers[number] = answer


async def run(order: dict[str, object]) -> Report:
    """Carry out one order: where, in which dialect, which tiles, how."""
    from benchmarks.dialects import open_dialect  # noqa: PLC0415 - the loops need no HTTP client

    tiles = [Path(str(path)).read_bytes() for path in order["tiles"]]  # type: ignore[attr-defined]
    async with open_dialect(str(order["dialect"]), str(order["url"]), tiles) as send:
        loop = Loop(send, len(tiles))
        seconds, used = float(str(order["seconds"])), time.process_time()
        if "rate" in order:
            report = await loop.open(float(str(order["rate"])), seconds)
        else:
            report = await loop.closed(int(str(order["clients"])), seconds)
        report.cpu_seconds = time.process_time() - used
        return report


def main() -> int:
    """Read an order, print the report."""
    json.dump(asdict(asyncio.run(run(json.load(sys.stdin)))), sys.stdout)
    return 0


if __name__ == "__main__":
    read_numbers("load", __doc__)
    sys.exit(main())
