"""Does anything grow? A steady load without faults, and the slope of every process' memory and files.

    make soak MINUTES=60          (or python -m tests.chaos.soak SECONDS)

Results are kept for seconds only, so that the ledger itself is in balance after the warm-up.
"""

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

import psutil

from tests.chaos import report
from tests.chaos.load import Load
from tests.chaos.plan import CLIENTS, ENGINE, WORKERS
from tests.chaos.system import System, running_system
from tests.chaos.test_chaos import first_answer
from tests.chaos.tiles import drawn_tiles, small_tiles

EVERY_SECONDS = 5.0
#: Everything has run once, and what is kept for a time has begun to be dropped; at least this long.
WARM_UP_SECONDS = 90.0
#: Between two submissions of one client: a load that is carried with ease.
PAUSE_SECONDS = 0.5
MEBIBYTE = 2**20
#: Short, so that the ledger is in balance when the warm-up is over.
SETTINGS = {
    "JOB_EXPIRES_SECONDS": "30",
    "IMAGE_RETENTION_SECONDS": "5",
    "RESULT_RETENTION_SECONDS": "15",
    "TOMBSTONE_SECONDS": "5",
    "LOG_LEVEL": "WARNING",
}


@dataclass
class Samples:
    """What was seen of each process, by what was measured and whose it is: (hours, value) pairs."""

    started_at: float = field(default_factory=time.monotonic)
    seen: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    #: Processes by role; one that is replaced was not meant to be.
    pids: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def take(self, system: System) -> None:
        """Look at every process, and at Redis from inside."""
        hours = (time.monotonic() - self.started_at) / 3600
        for role, process in system.nursery.all_processes().items():
            try:
                self.seen["RSS, MiB", role].append((hours, process.memory_info().rss / MEBIBYTE))
                self.seen["open files", role].append((hours, float(process.num_fds())))
            except psutil.NoSuchProcess:
                continue
            self.pids[role].add(process.pid)
        used = int(system.redis.info("memory")["used_memory"])
        self.seen["Redis' own count, MiB", "redis"].append((hours, used / MEBIBYTE))

    def slopes(self) -> dict[str, str]:
        """Return a line for each: first and last value, and what a straight line adds in an hour."""
        return {f"{what}, {whose}": _slope(pairs) for (what, whose), pairs in sorted(self.seen.items())}


def _slope(pairs: Sequence[tuple[float, float]]) -> str:
    if len(pairs) < 3:
        return "seen too rarely"
    hours, values = zip(*pairs, strict=True)
    slope = linear_regression(hours, values).slope
    return f"{values[0]:.1f} to {values[-1]:.1f}, {slope:+.1f} per hour"


def main(seconds: float) -> int:
    """Run the load, print the slopes; returns the exit status: 1 if a job was lost or a process replaced."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_system(Path(folder), WORKERS, 4, ENGINE, SETTINGS) as system,
    ):
        tiles = (
            drawn_tiles(lambda body: first_answer(system, body))
            if ENGINE == "real"
            else small_tiles(one_poison_in=10**9)
        )
        load, samples, ended = Load(system, tiles, pause_seconds=PAUSE_SECONDS), Samples(), 0

        def watch() -> None:
            nonlocal samples, ended
            start = time.monotonic()
            warm_up = min(max(WARM_UP_SECONDS, seconds / 10), seconds / 2)
            is_warm = False
            while time.monotonic() < start + seconds:
                time.sleep(EVERY_SECONDS)
                if not is_warm and time.monotonic() > start + warm_up:
                    is_warm, samples = True, Samples()
                samples.take(system)
                ended += load.history.forget_ended()

        load.run(CLIENTS, watch)
        ended += load.history.forget_ended()
        replaced = sorted(role for role, pids in samples.pids.items() if len(pids) > 1)
        figures = {
            "seconds": round(seconds),
            "jobs ended right": ended,
            "others": len(load.history.accepted),
            "processes replaced": ", ".join(replaced) or "none",
            **samples.slopes(),
        }
        report.publish(report.Figures("soak", figures))
        return 1 if replaced or load.history.accepted else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 180.0))
