"""Keys are known soon, and while their store is away."""

import threading
import time
from typing import Any

import pytest
import structlog

from api.key_cache import FRESH_SECONDS, PATIENCE_SECONDS, KeyCache
from ops.processes import wait_until
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
    key_store.create("b", frozenset(Scope))
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


def test_a_store_that_hangs_holds_up_no_request(key_store: KeyStore, clock: Clock) -> None:
    """All go by what is known, and only the first of them waits a moment before it does."""
    text = key_store.create("a", frozenset(Scope))[1]
    reads, goes_on = [], threading.Event()

    class Hanging(Shaky):
        def read(self, known: Any = None) -> Any:
            reads.append(known)
            assert len(reads) == 1 or goes_on.wait(10)
            time.sleep(0.05)  # whoever does not wait for it goes by what was known
            return super().read(known)

    cache = KeyCache(Hanging(key_store), lambda: clock.now_ms / 1000)  # type: ignore[arg-type]
    assert cache.ring().find(text)
    clock.advance(FRESH_SECONDS + 1)
    began = time.monotonic()
    for _ in range(20):
        assert cache.ring().find(text)
    assert time.monotonic() - began < PATIENCE_SECONDS + 0.5
    # One for all of them.
    assert len(reads) == 2
    another = key_store.create("b", frozenset(Scope))[1]
    goes_on.set()
    assert wait_until(lambda: cache.ring().find(another), 10)
    assert len(reads) == 2
    # It answers again, and is waited for again, each time.
    for name in ("c", "d"):
        clock.advance(FRESH_SECONDS + 1)
        text = key_store.create(name, frozenset(Scope))[1]
        assert cache.ring().find(text)


def test_a_bug_of_ours_keeps_the_keys_that_are_known(key_store: KeyStore, clock: Clock) -> None:
    """It is logged whole, and the next request has them read again."""
    text = key_store.create("a", frozenset(Scope))[1]
    bugs = [ZeroDivisionError()]

    class Buggy(Shaky):
        def read(self, known: Any = None) -> Any:
            if known is not None and bugs:
                raise bugs.pop()
            return super().read(known)

    cache = KeyCache(Buggy(key_store), lambda: clock.now_ms / 1000)  # type: ignore[arg-type]
    assert cache.ring().find(text)
    clock.advance(FRESH_SECONDS + 1)
    with structlog.testing.capture_logs() as lines:
        assert cache.ring().find(text)
    assert [(line["event"], line["log_level"]) for line in lines] == [("keys_not_read", "error")]
    another = key_store.create("b", frozenset(Scope))[1]
    assert cache.ring().find(another)
