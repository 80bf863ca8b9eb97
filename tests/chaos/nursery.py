"""Processes that a test may harm, and that come back as a container would."""

import os
import signal
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from ops.processes import Child, wait_until

#: A child that ended runs again after this long.
RESTART_SECONDS = 0.3


class Nursery:
    """Children by name; each is started again when it ends, until the nursery closes."""

    def __init__(self, folder: Path, children: dict[str, Child]) -> None:
        self._folder = folder
        self._children = children
        self._away: set[str] = set()
        self._stopped = threading.Event()
        #: One thread at a time makes or harms processes.
        self._lock = threading.Lock()
        self._nurse = threading.Thread(target=self._restart_the_dead, daemon=True)

    def __enter__(self) -> Self:
        """Keep alive what was started."""
        self._nurse.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all of it."""
        self._stopped.set()
        self._nurse.join()
        for child in self._children.values():
            child.send(signal.SIGCONT)
            child.kill()

    def signal(self, name: str, number: int) -> None:
        """Harm one child."""
        with self._lock:
            self._children[name].send(number)

    def signal_below(self, name: str, number: int) -> None:
        """Harm the processes that a child has started, and not itself."""
        for process in self.below(name):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue  # it has just ended

    def below(self, name: str) -> list[psutil.Process]:
        """Return the processes that a child has started: a worker's engine, the API's server."""
        with self._lock:
            try:
                return psutil.Process(self._children[name].pid).children()
            except psutil.NoSuchProcess:
                return []

    def all_processes(self) -> dict[str, psutil.Process]:
        """Return every process by its role: each child, and what it has started."""
        found = {}
        for name in self._children:
            found[name] = self.process(name)
            found.update({f"{name} > {number}": child for number, child in enumerate(self.below(name))})
        return found

    def process(self, name: str) -> psutil.Process:
        """Return one child as it runs now."""
        with self._lock:
            return psutil.Process(self._children[name].pid)

    def take_away(self, name: str) -> None:
        """End a child at once, and keep it away until `bring_back`."""
        with self._lock:
            self._away.add(name)
            self._children[name].kill()

    def bring_back(self, name: str) -> None:
        """Let it be started again."""
        with self._lock:
            self._away.discard(name)

    def drain(self, name: str, timeout_seconds: float) -> bool:
        """Ask a child to end and see another take its place; False where it had to be killed."""
        before = self._children[name].pid  # of one that has just been killed as well
        self.signal(name, signal.SIGTERM)
        in_time = wait_until(lambda: self._children[name].pid != before, timeout_seconds)
        if not in_time:
            self.signal(name, signal.SIGKILL)
        wait_until(lambda: self._children[name].pid != before, 10)
        return in_time

    def story(self) -> str:
        """Return the end of every log."""
        logs = sorted((self._folder / "logs").glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in logs)

    def _restart_the_dead(self) -> None:
        ended: dict[str, float] = {}
        while not self._stopped.wait(0.05):
            for name, child in self._children.items():
                if child.is_running:
                    ended.pop(name, None)
                elif time.monotonic() - ended.setdefault(name, time.monotonic()) > RESTART_SECONDS:
                    with self._lock:
                        if name not in self._away:
                            child.start()
