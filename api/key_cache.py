"""The API keys as one process knows them: read again every few seconds, kept while the store is away."""

import threading
import time
from collections.abc import Callable

import structlog

from shared.api_keys import KeyRing, KeyStore
from shared.errors import ObjectStoreUnavailable

#: A key that was made or revoked is known to every process after about this long.
FRESH_SECONDS = 5.0
#: While the keys are read, requests wait so long for it, and then go by those that are known.
PATIENCE_SECONDS = 0.5
_log = structlog.stdlib.get_logger("api.access")


class KeyCache:
    """All keys, at hand."""

    def __init__(self, store: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._ring: KeyRing | None = None
        self._tried_at = 0.0
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._is_hanging = False

    def ring(self) -> KeyRing:
        """Return all keys, as they were at most `FRESH_SECONDS` ago if the store answers.

        Raises:
            ObjectStoreUnavailable: if they could never be read yet.
        """
        if self._ring is None:
            return self.refresh()
        if self._is_due():
            self._wait_for(self._begun())
        return self._ring

    def _begun(self) -> threading.Thread:
        """Return the thread that reads the keys: no request waits for as long as a store that hangs."""
        with self._lock:
            if self._reader is None:
                self._reader = threading.Thread(target=self._read, name="keys", daemon=True)
                self._reader.start()
            return self._reader

    def _wait_for(self, reader: threading.Thread) -> None:
        if self._is_hanging:
            return
        reader.join(PATIENCE_SECONDS)
        with self._lock:
            self._is_hanging = self._reader is reader

    def _read(self) -> None:
        try:
            self.refresh()
        except Exception:  # noqa: BLE001 - logged whole; the next request has it tried again
            _log.exception("keys_not_read")
        finally:
            with self._lock:
                self._reader, self._is_hanging = None, False

    def _is_due(self) -> bool:
        return self._clock() - self._tried_at > FRESH_SECONDS

    def refresh(self) -> KeyRing:
        """Read the keys now, if the store answers.

        Raises:
            ObjectStoreUnavailable: if they could never be read yet.
        """
        began = self._clock()
        try:
            read = self._store.read(self._ring)
        except ObjectStoreUnavailable:
            if self._ring is None:
                raise
            _log.warning("keys_not_read", kept=len(self._ring.records))
            # It may have taken long to say nothing, and is not asked again at once.
            began = self._clock()
        else:
            known = _unreadable(self._ring)
            for key_id in sorted(_unreadable(read) - known):
                # Its holder is told that it opens nothing, and no more.
                _log.error("key_unreadable", key_id=key_id)
            # Keys that vanish were lost with the store, not taken back: the door stays shut.
            if self._ring is None or not read.is_empty:
                self._ring = read
        self._tried_at = began
        return self._ring


def _unreadable(ring: KeyRing | None) -> set[str]:
    return {key_id for key_id, record in ring.records.items() if record is None} if ring else set()
