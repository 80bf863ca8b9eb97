"""Keep the leases of the jobs that this worker holds, as long as it makes progress."""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from shared.errors import JobStoreUnavailable, cause_of
from shared.job_store import JobStore

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Lease:
    """This worker's hold on one job; `is_held` turns false when the ledger says so."""

    job_id: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    is_held: bool = True


class LeaseKeeper:
    """Renews every lease three times as often as it must; not while the worker is stuck: it lets go."""

    def __init__(self, jobs: JobStore, lease_seconds: float, is_stuck: Callable[[], bool]) -> None:
        self._jobs = jobs
        self._lease_seconds = lease_seconds
        self._is_stuck = is_stuck
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing."""
        self._stopped.set()

    @property
    def is_alive(self) -> bool:
        """Tell whether leases are renewed."""
        return self._thread.is_alive()

    def add(self, lease: Lease) -> None:
        """Renew this one from now on."""
        with self._lock:
            self._leases.add(lease)

    def remove(self, lease: Lease) -> None:
        """Renew this one no more."""
        with self._lock:
            self._leases.discard(lease)

    def renew_all(self) -> None:
        """Renew each lease once; a lost one is marked and forgotten."""
        with self._lock:
            leases = list(self._leases)
        for lease in leases:
            # Each by itself: what is wrong with one job's record is to cost no other its lease.
            try:
                is_held = self._jobs.renew(lease.job_id, lease.token, self._lease_seconds)
            except JobStoreUnavailable as error:
                _log.warning("lease_not_renewed", job_id=lease.job_id, cause=cause_of(error))
            except Exception:  # noqa: BLE001 - logged whole; without this thread every long job is lost
                _log.exception("lease_not_renewed", job_id=lease.job_id)
            else:
                if not is_held:
                    lease.is_held = False
                    self.remove(lease)

    def _keep(self) -> None:
        every_seconds = self._lease_seconds / 3
        due = time.monotonic() + every_seconds
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            # From its beginning on: a turn that waits for Redis in vain uses up the time of the leases.
            due = time.monotonic() + every_seconds
            if self._is_stuck():
                _log.error("worker_stuck", held=len(self._leases))
            else:
                self.renew_all()
