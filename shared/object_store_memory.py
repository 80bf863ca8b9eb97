"""Objects in one process' memory, for tests."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import BinaryIO

from shared.object_store import NewObject, StoredObject, put_each
from shared.schemas import wall_clock_ms


class MemoryObjectStore:
    """See `shared.object_store.ObjectStore` for what each method promises."""

    def __init__(self, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._objects: dict[str, bytes] = {}
        self._modified: dict[str, int] = {}
        self._clock = clock_ms
        self._lock = threading.Lock()

    def put(self, key: str, body: bytes | BinaryIO, content_type: str) -> None:  # noqa: ARG002
        with self._lock:
            self._objects[key] = body if isinstance(body, bytes) else body.read()
            self._modified[key] = self._clock()

    def put_all(self, objects: Sequence[NewObject], pool: Executor) -> None:
        put_each(self, objects, pool)

    def get(self, key: str, max_bytes: int) -> bytes:
        with self._lock:
            if key not in self._objects:
                raise FileNotFoundError(key)
            body = self._objects[key]
        if len(body) > max_bytes:
            raise ValueError(f"Expected at most {max_bytes} bytes at {key}. Found: {len(body)}")
        return body

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)

    def list_keys(self, prefix: str) -> list[str]:
        with self._lock:
            return sorted(key for key in self._objects if key.startswith(prefix))

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        for key in self.list_keys(prefix):
            yield StoredObject(key, self._modified[key])

    def remove_partial(self, older_than_seconds: float) -> None:
        pass

    def ensure_bucket(self) -> None:
        """A dictionary needs no bucket."""

    def ping(self) -> None:
        """Memory is always there."""
