"""Processes that a test may harm, and that come back as a container would."""

import os
import signal
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from ops.processes import Child

#: A child that ended runs again after this long.
RESTART_SECONDS = 0.3


class Nursery:
    """Children by name; each is started again when it ends, until the nursery closes."""

    def __init__(self, folder: Path, children: dict[str, Child]) -> None:
        self._folder = folder
        self._children = children
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
        with self._lock:
            try:
                for process in psutil.Process(self._children[name].pid).children():
                    os.kill(process.pid, number)
            except (psutil.NoSuchProcess, ProcessLookupError):
                return  # it has just ended

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
                        child.start()
