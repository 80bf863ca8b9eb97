"""One measurement: a load on a running system, what it cost, and whether the answers are right."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.dialects import open_dialect
from benchmarks.figures import Latency, latency
from benchmarks.micro_batches import micro_batches, since
from benchmarks.processes import Watch
from benchmarks.systems import ROOT, Running, System

#: Answers may differ by as much as a model's golden tiles may.
MOST_DIFFERENCE = 0.002
#: A run on which other programs took a larger share of the machine is made again.
MOST_FOREIGN_SHARE = 0.05
START_TIMEOUT_SECONDS = 180.0


@dataclass(frozen=True)
class Load:
    """What is asked of a system: so many clients, or tiles at a rate."""

    name: str
    clients: int | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Measurement:
    """What came of one load on one system with tiles of one size."""

    system: str
    size: int
    load: str
    round: int
    images_a_second: float
    answered: int
    failed: int
    first_failure: str | None
    latency: Latency | None
    #: CPU core-milliseconds of an answered tile, by process; the client's apart.
    cpu_ms: dict[str, float]
    client_cpu_ms: float
    peak_rss_mib: float
    #: Share of the machine that other programs took meanwhile.
    foreign_share: float
    #: Largest difference of a probability from the ceiling's.
    difference: float
    sent_late_seconds: float
    #: How many micro-batches had so many images, or fewer (and more than the size before); empty for a peer.
    micro_batches: dict[int, int] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Every tile was answered, and as the ceiling answers it."""
        return self.failed == 0 and self.answered > 0 and self.difference <= MOST_DIFFERENCE

    @property
    def server_cpu_ms(self) -> float:
        """CPU core-milliseconds of an answered tile, all processes but the client's."""
        return sum(self.cpu_ms.values())


def wait_for_answer(system: System, running: Running, tile: Path, began: float) -> float:
    """Return how many seconds after `began` the first tile was answered.

    Raises:
        TimeoutError: if none is.
    """
    return asyncio.run(_first_answer(system, running.url, tile.read_bytes(), began))


async def _first_answer(system: System, url: str, tile: bytes, began: float) -> float:
    error: Exception | None = None
    while time.monotonic() - began < START_TIMEOUT_SECONDS:
        try:
            async with open_dialect(system.dialect, url, [tile]) as send:
                await send(0)
                return time.monotonic() - began
        except Exception as failed:  # noqa: BLE001 - a server that starts refuses in any way
            error = failed
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{system.name} gave no answer within {START_TIMEOUT_SECONDS:g} s: {error!r}")


def measure(
    system: System,
    running: Running,
    load: Load,
    tiles: Sequence[Path],
    seconds: float,
    expected: Sequence[Sequence[float]],
    number: int,
    size: int,
) -> Measurement:
    """Put one load on a system for so long."""
    batches = micro_batches(running.metrics_url)
    with Watch(lambda: running.roots, time.monotonic) as watch:
        report = _run_client(system, running.url, load, tiles, seconds)
    cost = watch.cost()
    answered = len(report["latencies"])
    client_seconds = float(report["cpu_seconds"])
    foreign = max(0.0, cost.foreign_cpu_seconds - client_seconds)
    return Measurement(
        system=system.name,
        size=size,
        load=load.name,
        round=number,
        images_a_second=answered / (report["ended"] - report["began"]),
        answered=answered,
        failed=len(report["failures"]),
        first_failure=report["failures"][0] if report["failures"] else None,
        latency=latency(report["latencies"]) if answered else None,
        cpu_ms={name: used * 1000 / max(1, answered) for name, used in sorted(cost.cpu_seconds.items())},
        client_cpu_ms=client_seconds * 1000 / max(1, answered),
        peak_rss_mib=cost.peak_rss_bytes / 2**20,
        foreign_share=foreign / (cost.seconds * (os.cpu_count() or 1)),
        difference=largest_difference(report["answers"], expected) if system.has_model else 0.0,
        sent_late_seconds=report["sent_late"],
        micro_batches=since(batches, micro_batches(running.metrics_url)),
    )


def largest_difference(answers: dict[str, list[float]], expected: Sequence[Sequence[float]]) -> float:
    """Return how far any probability is from the expected one; infinite where an answer has another form."""
    worst = 0.0
    for number, row in answers.items():
        wanted = expected[int(number)]
        if len(row) != len(wanted):
            return float("inf")
        worst = max(worst, *(abs(got - want) for got, want in zip(row, wanted, strict=True)))
    return worst


def _run_client(
    system: System, url: str, load: Load, tiles: Sequence[Path], seconds: float
) -> dict[str, Any]:
    order = {
        "dialect": system.dialect,
        "url": url,
        "tiles": [str(path) for path in tiles],
        "seconds": seconds,
        **{name: value for name, value in asdict(load).items() if value is not None},
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(order).encode(),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report
