"""Where images and model versions lie, by key; a key is never also the prefix of another.

`object_store_s3.py` is any S3, `object_store_files.py` a folder for one machine, `object_store_memory.py` the
one for tests; all are held to `tests/contract/test_object_store.py`.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing has it; the time is that of its last write, by the store's clock."""

    key: str
    modified_at_ms: int


@dataclass(frozen=True)
class NewObject:
    """An object to be stored."""

    key: str
    body: bytes
    content_type: str


class ObjectStore(Protocol):
    """Bytes by key. Every method raises ObjectStoreUnavailable where the store cannot answer in time."""

    def put(self, key: str, body: bytes | BinaryIO, content_type: str) -> None:
        """Store the whole object, or nothing; replaces what was there."""

    def put_all(self, objects: Sequence[NewObject], pool: Executor) -> None:
        """Store several, each as `put` does; where it raises, some of them may be stored.

        Those that a server is asked for go side by side, in the threads of `pool`.
        """

    def get(self, key: str, max_bytes: int) -> bytes:
        """Return the object.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it has more than `max_bytes`.
        """

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    def list_keys(self, prefix: str) -> list[str]:
        """Return every key that starts so, in order."""

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key starts so, in order of keys, in bounded memory."""

    def remove_partial(self, older_than_seconds: float) -> None:
        """Remove what calls have left that broke off with their process, so long ago."""

    def ensure_bucket(self) -> None:
        """Make the bucket, if it is not there."""

    def ping(self) -> None:
        """Return if the store answers and the bucket is there; a folder is also written to."""


@dataclass(frozen=True)
class Patience:
    """How long one call may take, in seconds and attempts."""

    connect_seconds: float
    read_seconds: float
    attempts: int


#: A client waits for the answer: say "503" while it still listens, also where Redis was slow before.
REQUEST_PATIENCE = Patience(connect_seconds=1, read_seconds=2.5, attempts=1)
#: Nobody waits: ride out a short outage.
WORKER_PATIENCE = Patience(connect_seconds=2, read_seconds=10, attempts=3)


def put_each(store: ObjectStore, objects: Sequence[NewObject], pool: Executor) -> None:
    """Store several, each by a `put` of its own in a thread of `pool`."""
    list(pool.map(lambda new: store.put(new.key, new.body, new.content_type), objects))
