"""Let requests wait for their jobs: one listener per process, one event per waiting request."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from shared.errors import CallerError, JobStoreUnavailable
from shared.job_store import JobStore
from shared.schemas import Job

#: No request waits longer, whatever it asks for.
LONGEST_WAIT_SECONDS = 30
#: A waiter looks for itself this often: a notice can be lost with its connection.
REREAD_SECONDS = 2.0
#: One stream of changes lasts this long, less than any request may; a client goes on with the next one.
LONGEST_STREAM_SECONDS = 75
#: A stream says something at least this often, so that whatever lies between keeps it open.
KEEPALIVE_SECONDS = 15.0
#: Between two tries to listen.
RECONNECT_SECONDS = 1.0
#: The listener stays this long after the last waiter has left.
LINGER_SECONDS = 30.0
_log = structlog.stdlib.get_logger("api.events")


class WaitingRoom:
    """At most `max_waiters` requests that wait for a job at the same time."""

    def __init__(self, jobs: JobStore, max_waiters: int) -> None:
        self._jobs = jobs
        self._max_waiters = max_waiters
        self._is_stopping: Callable[[], bool] = lambda: False
        self._lock = threading.Lock()
        self._waiters: dict[threading.Event, str] = {}
        self._listener: threading.Thread | None = None
        self._empty_since = time.monotonic()

    def stop_when(self, is_stopping: Callable[[], bool]) -> None:
        """Let every waiter go, within two seconds, once `is_stopping()` says so."""
        self._is_stopping = is_stopping

    def until_final(self, job: Job, seconds: float) -> Job:
        """Return the job once it is final, or as it stands after `seconds`.

        Returns at once where the room is full. A ledger that goes away meanwhile ends nothing: the job is
        returned as it was last seen.

        Raises:
            JobNotFound: if the ledger has lost the job meanwhile.
            ResultExpired: if its result was dropped meanwhile.
        """
        if job.status.is_final or seconds <= 0:
            return job
        until = time.monotonic() + min(seconds, LONGEST_WAIT_SECONDS)
        with self._seat(job.id) as changed:
            while changed and not job.status.is_final and not self._is_stopping():
                left = until - time.monotonic()
                if left <= 0:
                    break
                changed.wait(min(left, REREAD_SECONDS))
                changed.clear()
                job = self._read(job)
        return job

    def follow(self, job: Job) -> Iterator[Job | None]:
        """Yield the job as it is and after each change, None from time to time; ends after its end.

        It ends early, and at once where the room is full: whoever follows comes again.
        """
        yield job
        until = time.monotonic() + LONGEST_STREAM_SECONDS
        said_at = time.monotonic()
        with self._seat(job.id) as changed:
            while changed and not job.status.is_final and time.monotonic() < until:
                changed.wait(REREAD_SECONDS)
                changed.clear()
                if self._is_stopping():
                    return
                try:
                    seen = self._read(job)
                except CallerError:
                    return  # deleted meanwhile: the next request is told
                if seen.version != job.version:
                    job, said_at = seen, time.monotonic()
                    yield job
                elif time.monotonic() - said_at > KEEPALIVE_SECONDS:
                    said_at = time.monotonic()
                    yield None

    def _read(self, job: Job) -> Job:
        try:
            return self._jobs.get(job.id)
        except JobStoreUnavailable:
            return job

    @contextmanager
    def _seat(self, job_id: str) -> Iterator[threading.Event | None]:
        changed = threading.Event()
        # Set from the beginning: what changed between the first look and this line has to be looked at.
        changed.set()
        if not self._enter(changed, job_id):
            yield None
            return
        try:
            yield changed
        finally:
            with self._lock:
                del self._waiters[changed]
                self._empty_since = time.monotonic()

    def _enter(self, changed: threading.Event, job_id: str) -> bool:
        with self._lock:
            if len(self._waiters) >= self._max_waiters:
                return False
            self._waiters[changed] = job_id
            if self._listener is None or not self._listener.is_alive():
                self._listener = threading.Thread(target=self._listen, name="job-changes", daemon=True)
                self._listener.start()
            return True

    def _listen(self) -> None:
        while not self._may_retire():
            try:
                self._pass_on_changes()
            except JobStoreUnavailable:
                _log.warning("listener_lost", next_try_seconds=RECONNECT_SECONDS)
                time.sleep(RECONNECT_SECONDS)

    def _pass_on_changes(self) -> None:
        for number, job_id in enumerate(self._jobs.changes()):
            # With the first item the subscription stands: whatever changed before it went by unheard.
            self._wake(None if number == 0 or self._is_stopping() else job_id or "")
            if self._may_retire(peek=True):
                return

    def _wake(self, job_id: str | None) -> None:
        """Wake who waits for this job; None wakes all."""
        with self._lock:
            for changed, awaited in self._waiters.items():
                if job_id is None or awaited == job_id:
                    changed.set()

    def _may_retire(self, peek: bool = False) -> bool:
        """Tell whether nobody has waited for a while; unless it is a `peek`, the thread counts as gone."""
        with self._lock:
            retires = not self._waiters and time.monotonic() - self._empty_since > LINGER_SECONDS
            if retires and not peek:
                self._listener = None
            return retires
