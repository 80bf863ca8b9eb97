"""Do one thing again and again, in a thread of its own."""

import random
import threading
from collections.abc import Callable

import structlog

from shared.errors import HistoQueueError, cause_of

_log = structlog.get_logger(__name__)


class Routine:
    """A thread that does one thing again and again until it is told to stop.

    Each has its own: a hung object store holds up the cleaning, and not the search for lost jobs.
    """

    def __init__(self, name: str, every_seconds: float, work: Callable[[], object]) -> None:
        """Do `work` every so many seconds, a little at random, so that those of many workers spread out."""
        self._name = name
        self._every_seconds = every_seconds
        self._work = work
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the turn that is under way."""
        self._stopped.set()

    def _repeat(self) -> None:
        while not self._stopped.wait(self._every_seconds * random.uniform(0.7, 1.3)):  # noqa: S311 - no secret
            try:
                self._work()
            except HistoQueueError as error:
                _log.warning("routine_waits", routine=self._name, error=str(error), cause=cause_of(error))
            except Exception:  # noqa: BLE001 - logged whole
                # A turn that fails is made again; a thread that died would never be missed.
                _log.exception("routine_failed", routine=self._name)
