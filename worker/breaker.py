"""Stop taking jobs when different ones end the engine in a row: then the engine is ill, and not they."""

import threading
import time
from collections.abc import Callable

import structlog

#: So many jobs, each alone in the engine, with no other outcome in between.
MOST_CRASHES = 3
#: How long nothing is taken then; after it, one more crash is enough to stop again.
REST_SECONDS = 30.0
#: How often a thread that waits looks.
LOOK_EVERY_SECONDS = 0.5
_log = structlog.get_logger(__name__)


class CrashBreaker:
    """Shared by all threads that run jobs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._crashed: set[str] = set()
        self._open_until = 0.0

    def crashed(self, job_id: str) -> None:
        """Note that this job ended the engine while it was alone in it."""
        with self._lock:
            self._crashed.add(job_id)
            if len(self._crashed) < MOST_CRASHES or self.is_open:
                return
            self._open_until = self._clock() + REST_SECONDS
            # One of them is forgotten, so that the next crash counts as one too many again.
            self._crashed.pop()
        _log.critical("breaker_opened", jobs=MOST_CRASHES, rest_seconds=REST_SECONDS)

    def worked(self) -> None:
        """Note that the engine gave an outcome."""
        with self._lock:
            self._crashed.clear()

    def wait_until_closed(self, is_over: Callable[[], bool]) -> None:
        """Return when jobs may be taken; a thread that waits here takes no further message either.

        It ends early when `is_over` says that none will be run any more.
        """
        while self.is_open and not is_over():
            time.sleep(LOOK_EVERY_SECONDS)

    @property
    def is_open(self) -> bool:
        """No job is to be taken now."""
        return self._clock() < self._open_until
