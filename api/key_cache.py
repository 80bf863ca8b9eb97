"""The API keys as one process knows them: read again every few seconds, kept while the store is away."""

import threading
import time
from collections.abc import Callable

import structlog

from shared.api_keys import KeyRing, KeyStore
from shared.errors import ObjectStoreUnavailable

#: A key that was made or revoked is known to every process after about this long.
FRESH_SECONDS = 5.0
#: A list this old is read again before it is used, and not beside the request.
STALE_SECONDS = 60.0
_log = structlog.stdlib.get_logger("api.access")


class KeyCache:
    """All keys, at hand."""

    def __init__(self, store: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._ring: KeyRing | None = None
        self._tried_at = 0.0
        self._lock = threading.Lock()

    def ring(self) -> KeyRing:
        """Return all keys.

        Raises:
            ObjectStoreUnavailable: if they could never be read yet.
        """
        age = self._clock() - self._tried_at
        ring = self._ring
        if ring is None or age > STALE_SECONDS:
            return self.refresh()
        if age > FRESH_SECONDS and self._lock.acquire(blocking=False):
            self._tried_at = self._clock()
            self._lock.release()
            threading.Thread(target=self.refresh, name="api-keys", daemon=True).start()
        return ring

    def refresh(self) -> KeyRing:
        """Read the keys now, if the store answers.

        Raises:
            ObjectStoreUnavailable: if they could never be read yet.
        """
        try:
            read = self._store.read(self._ring)
        except ObjectStoreUnavailable:
            if self._ring is None:
                raise
            _log.warning("keys_not_read", kept=len(self._ring.records))
        else:
            # Keys that vanish were lost with the store, not taken back: the door stays shut.
            if self._ring is None or not read.is_empty:
                self._ring = read
        self._tried_at = self._clock()
        return self._ring
