"""Let requests wait for their jobs: one listener per process, one event per waiting request."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from shared.errors import CallerError, JobStoreUnavailable
from shared.job_store import Change, JobStore
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
#: So many ends are remembered: more than come within REREAD_SECONDS.
MOST_ENDED_LATELY = 4096
_log = structlog.stdlib.get_logger("api.events")


@dataclass(eq=False)
class _Waiter:
    """A request that waits for a job's end, or for each change of it."""

    job_id: str
    #: The API key that asks.
    owner: str | None
    awaits_end: bool
    since: float = field(default_factory=time.monotonic)
    changed: threading.Event = field(default_factory=threading.Event)
    #: Its seat was given to another key's.
    is_dismissed: bool = False
    #: Reads the job as it ended, once the notice of that is here and says so.
    ended: Callable[[], Job] | None = None


class WaitingRoom:
    """At most `max_waiters` requests that wait for a job at the same time, fairly shared among API keys."""

    def __init__(self, jobs: JobStore, max_waiters: int) -> None:
        self._jobs = jobs
        self._max_waiters = max_waiters
        self._is_stopping: Callable[[], bool] = lambda: False
        self._lock = threading.Lock()
        self._waiters: dict[str, list[_Waiter]] = {}
        self._listener: threading.Thread | None = None
        #: Since when no notice is missed; None while some may be.
        self._hears_since: float | None = None
        #: Jobs whose end was heard of, the latest last: one may end between a waiter's look and its seat.
        self._ended_lately: OrderedDict[str, None] = OrderedDict()
        self._empty_since = time.monotonic()

    def stop_when(self, is_stopping: Callable[[], bool]) -> None:
        """Let every waiter go, within two seconds, once `is_stopping()` says so."""
        self._is_stopping = is_stopping

    def until_final(self, job: Job, seconds: float, owner: str | None = None) -> Job:
        """Return the job once it is final, or as it stands after `seconds`.

        Returns at once where the room is full, and early where another owner needs the seat. A ledger that
        goes away meanwhile ends nothing: the job is returned as it was last seen.

        Raises:
            JobNotFound: if the ledger has lost the job meanwhile.
            ResultExpired: if its result was dropped meanwhile.
        """
        if job.status.is_final or seconds <= 0:
            return job
        until = time.monotonic() + min(seconds, LONGEST_WAIT_SECONDS)
        with self._seat(_Waiter(job.id, owner, awaits_end=True)) as waiter:
            while waiter and not (job.status.is_final or waiter.is_dismissed or self._is_stopping()):
                left = until - time.monotonic()
                if left <= 0:
                    break
                waiter.changed.wait(min(left, REREAD_SECONDS))
                waiter.changed.clear()
                job = self._as_told(waiter, job)
        return job

    def follow(self, job: Job, owner: str | None = None) -> Iterator[Job | None]:
        """Yield the job as it is and after each change, None from time to time; ends after its end.

        It ends early, and at once where the room is full, or when another owner needs the seat: whoever
        follows comes again.
        """
        yield job
        until = time.monotonic() + LONGEST_STREAM_SECONDS
        said_at = time.monotonic()
        with self._seat(_Waiter(job.id, owner, awaits_end=False)) as waiter:
            while waiter and not job.status.is_final and time.monotonic() < until:
                waiter.changed.wait(REREAD_SECONDS)
                waiter.changed.clear()
                if waiter.is_dismissed or self._is_stopping():
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

    def _as_told(self, waiter: _Waiter, job: Job) -> Job:
        """Return the job as the notice of its end has it, or else as the ledger does."""
        ended = waiter.ended() if waiter.ended else None
        # One that is no newer is of an end before a retry.
        return ended if ended and ended.version > job.version else self._read(job)

    def _read(self, job: Job) -> Job:
        try:
            return self._jobs.get(job.id)
        except JobStoreUnavailable:
            return job

    @contextmanager
    def _seat(self, waiter: _Waiter) -> Iterator[_Waiter | None]:
        if not self._enter(waiter):
            yield None
            return
        try:
            yield waiter
        finally:
            with self._lock:
                if not waiter.is_dismissed:
                    self._leave(waiter)

    def _enter(self, waiter: _Waiter) -> bool:
        with self._lock:
            if not self._has_room_for(waiter.owner):
                return False
            if self._listener is None or not self._listener.is_alive():
                # First: where it cannot be started, nobody would give the seat back.
                self._listener = threading.Thread(target=self._listen, name="job-changes", daemon=True)
                self._listener.start()
            self._waiters.setdefault(waiter.job_id, []).append(waiter)
            if not waiter.awaits_end or waiter.job_id in self._ended_lately or not self._has_heard_for_long():
                # What changed between the first look and this line has to be looked at.
                waiter.changed.set()
            return True

    def _has_room_for(self, owner: str | None) -> bool:
        """Tell whether there is a seat: if need be that of the first waiter of the owner with the most."""
        seated = [waiter for waiters in self._waiters.values() for waiter in waiters]
        if len(seated) < self._max_waiters:
            return True
        seats = Counter(waiter.owner for waiter in seated)
        greediest, most = max(seats.items(), key=lambda item: item[1], default=(None, 0))
        if most < seats[owner] + 2:
            # With one seat fewer it would be the one that is short of them.
            return False
        first = min((one for one in seated if one.owner == greediest), key=lambda one: one.since)
        first.is_dismissed = True
        first.changed.set()
        self._leave(first)
        return True

    def _leave(self, waiter: _Waiter) -> None:
        self._waiters[waiter.job_id].remove(waiter)
        if not self._waiters[waiter.job_id]:
            del self._waiters[waiter.job_id]
        self._empty_since = time.monotonic()

    def _has_heard_for_long(self) -> bool:
        """Tell whether every end since a waiter's first look was heard of, unless that was very long ago."""
        since = self._hears_since
        return since is not None and time.monotonic() - since > REREAD_SECONDS

    def _listen(self) -> None:
        while not self._may_retire():
            try:
                self._pass_on_changes()
            except JobStoreUnavailable:
                _log.warning("listener_lost", next_try_seconds=RECONNECT_SECONDS)
                time.sleep(RECONNECT_SECONDS)

    def _pass_on_changes(self) -> None:
        try:
            for number, change in enumerate(self._jobs.changes()):
                if number == 0:
                    self._hears_since = time.monotonic()
                # Whatever changed before the first item went by unheard.
                self._wake(change, everybody=number == 0 or self._is_stopping())
                if self._may_retire(peek=True):
                    return
        finally:
            with self._lock:
                self._hears_since = None
                self._ended_lately.clear()

    def _wake(self, change: Change | None, everybody: bool) -> None:
        """Wake who waits for this change."""
        with self._lock:
            if everybody:
                for waiters in self._waiters.values():
                    for waiter in waiters:
                        waiter.changed.set()
            if change is None:
                return
            for waiter in self._waiters.get(change.job_id, ()):
                if change.status.is_final or not waiter.awaits_end:
                    waiter.ended = change.ended
                    waiter.changed.set()
            if change.status.is_final:
                self._ended_lately[change.job_id] = None
                self._ended_lately.move_to_end(change.job_id)
                if len(self._ended_lately) > MOST_ENDED_LATELY:
                    self._ended_lately.popitem(last=False)

    def _may_retire(self, peek: bool = False) -> bool:
        """Tell whether nobody has waited for a while; unless it is a `peek`, the thread counts as gone."""
        with self._lock:
            retires = not self._waiters and time.monotonic() - self._empty_since > LINGER_SECONDS
            if retires and not peek:
                self._listener = None
            return retires
