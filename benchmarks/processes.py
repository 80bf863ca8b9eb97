"""What processes cost, read from /proc: CPU time by name, memory, and what the rest of the machine did."""

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: How often memory is looked at, and CPU time noted before a process can end unseen.
SAMPLE_SECONDS = 0.25
#: The first that stands in a command line names its process.
_NAMES = {
    "worker.engine": "engine",
    "-m worker.webhooks": "webhooks",
    "-m worker": "worker",
    "gunicorn": "api",
    "ops.up": "supervisor",
    "valkey-server": "redis",
    "redis-server": "redis",
    "rclone": "object store",
    "benchmarks.load": "client",
    "benchmarks.ceiling": "model",
    "tests.chaos.sleeping_engine": "engine",
    "tests.chaos.worker": "worker",
    "benchmarks.thin_worker": "worker",
    "benchmarks.scale": "client",
}


@dataclass(frozen=True)
class Usage:
    """One process at one moment."""

    pid: int
    parent: int
    cpu_seconds: float
    rss_bytes: int


def read_usage(pid: int, proc: Path = Path("/proc")) -> Usage | None:
    """Return what the kernel has booked for a process, ended threads included; None where it is gone."""
    try:
        text = (proc / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in brackets and may hold spaces and brackets itself.
    fields = text.rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(pid, int(fields[1]), ticks / _TICKS_A_SECOND, int(fields[21]) * _PAGE_BYTES)


def name_of(pid: int, proc: Path = Path("/proc")) -> str:
    """Return a short name of a process: ours by what it runs, any other by its program."""
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    line = " ".join(words)
    known = next((name for sign, name in _NAMES.items() if sign in line), None)
    return known or Path(words[0]).name.partition(":")[0] or "kernel"


def busy_seconds(proc: Path = Path("/proc")) -> float:
    """Return the CPU seconds that the whole machine has worked, idle and waiting left out."""
    fields = [int(field) for field in (proc / "stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / _TICKS_A_SECOND


def tree(root: int, proc: Path = Path("/proc")) -> list[Usage]:
    """Return a process and all that descend from it."""
    found = [
        usage
        for path in proc.iterdir()
        if path.name.isdigit() and (usage := read_usage(int(path.name), proc))
    ]
    children: dict[int, list[Usage]] = defaultdict(list)
    for usage in found:
        children[usage.parent].append(usage)
    members = [usage for usage in found if usage.pid == root]
    for usage in members:
        members.extend(children[usage.pid])
    return members


@dataclass(frozen=True)
class Cost:
    """What a tree of processes used while it was watched."""

    seconds: float
    cpu_seconds: Mapping[str, float]
    peak_rss_bytes: int
    #: CPU seconds of everything else on the machine.
    foreign_cpu_seconds: float


class Watch:
    """Watches trees of processes from `with` to its end; `cost()` afterwards."""

    def __init__(self, roots: Callable[[], list[int]], clock: Callable[[], float]) -> None:
        """`roots` gives the processes whose trees count; `clock` gives seconds."""
        self._roots = roots
        self._clock = clock
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._names: dict[int, str] = {}
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._began = self._clock()
        self._busy = busy_seconds()
        self._look(first=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._look()
        self._ended = self._clock()
        self._busy = busy_seconds() - self._busy

    def cost(self) -> Cost:
        """Return what was used; for a process that ended, up to the last look at it."""
        by_name: dict[str, float] = defaultdict(float)
        for pid, used in self._last.items():
            by_name[self._names[pid]] += used - self._first[pid]
        ours = sum(by_name.values())
        return Cost(self._ended - self._began, dict(by_name), self._peak, max(0.0, self._busy - ours))

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self, first: bool = False) -> None:
        members = {usage.pid: usage for root in self._roots() for usage in tree(root)}
        self._peak = max(self._peak, sum(usage.rss_bytes for usage in members.values()))
        for pid, usage in members.items():
            if pid not in self._first:
                # One that began while we watched has used all of its time since.
                self._first[pid] = usage.cpu_seconds if first else 0.0
                self._names[pid] = name_of(pid)
            self._last[pid] = usage.cpu_seconds
