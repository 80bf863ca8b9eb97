"""Keys are known soon, and while their store is away."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from api.key_cache import FRESH_SECONDS, PATIENCE_SECONDS, KeyCache
from shared.api_keys import KeyStore, Scope
from shared.errors import ObjectStoreUnavailable
from tests.unit.api.conftest import Shaky
from tests.work import Clock


def test_keys_are_kept_while_the_store_is_away(key_store: KeyStore, clock: Clock) -> None:
    """What was known holds; what was never known is no open door."""
    text = key_store.create("a", frozenset(Scope))[1]
    shaky = Shaky(key_store)
    cache = KeyCache(shaky, lambda: clock.now_ms / 1000)  # type: ignore[arg-type]
    shaky.is_away = True
    with pytest.raises(ObjectStoreUnavailable):
        cache.ring()
    shaky.is_away = False
    assert cache.ring().find(text)
    shaky.is_away = True
    clock.advance(FRESH_SECONDS + 1)
    assert cache.ring().find(text)


def test_a_revoked_key_is_shut_out_and_the_door_stays_shut(key_store: KeyStore, clock: Clock) -> None:
    """Also where it was the only one, and where every object was lost."""
    record, text = key_store.create("a", frozenset(Scope))
    cache = KeyCache(key_store, lambda: clock.now_ms / 1000)
    assert cache.ring().find(text)
    key_store.revoke(record.id)
    clock.advance(FRESH_SECONDS + 1)
    assert cache.ring().find(text) is None
    assert not cache.ring().is_empty
    for key in key_store._objects.list_keys("keys/"):
        key_store._objects.delete(key)
    clock.advance(FRESH_SECONDS + 1)
    assert not cache.ring().is_empty


def test_a_key_that_cannot_be_read_is_told_to_the_operator(key_store: KeyStore, clock: Clock) -> None:
    """Once; its holder hears that it opens nothing, and nothing else did say why."""
    record, _ = key_store.create("a", frozenset(Scope))
    key_store._objects.put(f"keys/{record.id}.json", b"\0", "application/json")
    cache = KeyCache(key_store, lambda: clock.now_ms / 1000)
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            cache.ring()
            clock.advance(FRESH_SECONDS + 1)
    assert lines == [{"event": "key_unreadable", "key_id": record.id, "log_level": "error"}]


def test_a_new_key_is_known_soon(key_store: KeyStore, clock: Clock) -> None:
    """The first request after that reads the keys; those before it do not."""
    cache = KeyCache(key_store, lambda: clock.now_ms / 1000)
    assert cache.ring().is_empty
    text = key_store.create("a", frozenset(Scope))[1]
    clock.advance(FRESH_SECONDS)
    assert cache.ring().is_empty
    clock.advance(1)
    assert cache.ring().find(text) is not None


def test_a_store_that_hangs_holds_up_one_request(key_store: KeyStore, clock: Clock) -> None:
    """Others go by what is known, and only the first of them waits a moment before it does."""
    text = key_store.create("a", frozenset(Scope))[1]
    hangs, goes_on = threading.Event(), threading.Event()

    class Hanging(Shaky):
        def read(self, known: Any = None) -> Any:
            if known is not None:
                hangs.set()
                assert goes_on.wait(10)
            return super().read(known)

    cache = KeyCache(Hanging(key_store), lambda: clock.now_ms / 1000)  # type: ignore[arg-type]
    assert cache.ring().find(text)
    clock.advance(FRESH_SECONDS + 1)
    with ThreadPoolExecutor(1) as other:
        reader = other.submit(cache.ring)
        assert hangs.wait(10)
        began = time.monotonic()
        assert cache.ring().find(text)
        assert time.monotonic() - began < PATIENCE_SECONDS + 0.5
        for _ in range(20):
            assert cache.ring().find(text)
        assert time.monotonic() - began < PATIENCE_SECONDS + 0.5
        goes_on.set()
        assert reader.result().find(text)
