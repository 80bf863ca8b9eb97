"""Where images and model versions lie: any S3, or one process' memory for tests.

Works on stores that keep no user metadata, ignore conditional writes and know no lifecycle rules, as
`rclone serve s3` does; a key is never also the prefix of another.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, Protocol

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from shared.errors import ObjectStoreUnavailable
from shared.schemas import wall_clock_ms

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: An internal error that took no more than this share of the patience is worth another try.
HICCUP_SHARE = 0.3
_MISSING = {"NoSuchKey", "NoSuchBucket", "404", "NotFound"}


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing has it; the time is that of its last write, by the store's clock."""

    key: str
    modified_at_ms: int


class ObjectStore(Protocol):
    """Bytes by key. Every method raises ObjectStoreUnavailable where the store cannot answer in time."""

    def put(self, key: str, body: bytes | BinaryIO, content_type: str) -> None:
        """Store the whole object, or nothing; replaces what was there."""

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

    def ensure_bucket(self) -> None:
        """Make the bucket, if it is not there."""

    def ping(self) -> None:
        """Return if the store answers and the bucket is there."""


@dataclass(frozen=True)
class Patience:
    """How long one call may take, in seconds and attempts."""

    connect_seconds: float
    read_seconds: float
    attempts: int


#: A client waits for the answer: say "503" while it still listens.
REQUEST_PATIENCE = Patience(connect_seconds=1, read_seconds=3.5, attempts=1)
#: Nobody waits: ride out a short outage.
WORKER_PATIENCE = Patience(connect_seconds=2, read_seconds=10, attempts=3)


class S3ObjectStore:
    """An S3 bucket; credentials come from boto3's usual chain."""

    def __init__(
        self, bucket: str, endpoint_url: str | None, region: str, patience: Patience, connections: int = 32
    ) -> None:
        """`endpoint_url` None means AWS S3; `connections` is the size of the pool, one for each thread."""
        self._bucket = bucket
        self._hiccup_seconds = HICCUP_SHARE * patience.read_seconds
        # A session of its own: the default one is shared by threads and keeps the first credentials it saw.
        self._client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"} if endpoint_url else {},
                # Small S3 servers do not know the newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                connect_timeout=patience.connect_seconds,
                read_timeout=patience.read_seconds,
                retries={"mode": "standard", "total_max_attempts": patience.attempts},
                max_pool_connections=connections,
            ),
        )

    def put(self, key: str, body: bytes | BinaryIO, content_type: str) -> None:
        file = BytesIO(body) if isinstance(body, bytes) else body
        start, began = file.tell(), time.monotonic()
        with _answering():
            try:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=file, ContentType=content_type)
            except ClientError as error:
                if not _is_hiccup(error) or time.monotonic() - began > self._hiccup_seconds:
                    raise
                file.seek(start)
                self._client.put_object(Bucket=self._bucket, Key=key, Body=file, ContentType=content_type)

    def get(self, key: str, max_bytes: int) -> bytes:
        with _answering(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            with answer["Body"] as stream:
                if answer["ContentLength"] > max_bytes:
                    raise ValueError(
                        f"Expected at most {max_bytes} bytes at {key}. Found: {answer['ContentLength']}"
                    )
                return stream.read()

    def delete(self, key: str) -> None:
        with _answering():
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def list_keys(self, prefix: str) -> list[str]:
        with _answering():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        )
        while True:
            with _answering():
                page = next(pages, None)
            if page is None:
                return
            for item in page.get("Contents", []):
                yield StoredObject(item["Key"], int(item["LastModified"].timestamp() * 1000))

    def ensure_bucket(self) -> None:
        with _answering():
            names = {bucket["Name"] for bucket in self._client.list_buckets()["Buckets"]}
            if self._bucket not in names:
                self._client.create_bucket(Bucket=self._bucket)

    def ping(self) -> None:
        with _answering():
            self._client.head_bucket(Bucket=self._bucket)


def _is_hiccup(error: ClientError) -> bool:
    """Tell an internal error of the server, such as rclone's when a write meets the removal of its folder.

    rclone removes a folder with the last object in it; one write in some hundreds fails where writes and
    deletions of the same folder's only objects go on at the same time.
    """
    return error.response["ResponseMetadata"]["HTTPStatusCode"] == 500


@contextmanager
def _answering(key: str | None = None) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if key is not None and error.response["Error"]["Code"] in _MISSING:
            raise FileNotFoundError(key) from error
        raise ObjectStoreUnavailable("The object store refused. Ask again later.") from error
    except (BotoCoreError, OSError) as error:
        # The text names the server's address: for the log, not for a client.
        raise ObjectStoreUnavailable("The object store does not answer. Ask again later.") from error


class MemoryObjectStore:
    """Objects in a dictionary, for tests."""

    def __init__(self, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._objects: dict[str, bytes] = {}
        self._modified: dict[str, int] = {}
        self._clock = clock_ms
        self._lock = threading.Lock()

    def put(self, key: str, body: bytes | BinaryIO, content_type: str) -> None:  # noqa: ARG002
        with self._lock:
            self._objects[key] = body if isinstance(body, bytes) else body.read()
            self._modified[key] = self._clock()

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

    def ensure_bucket(self) -> None:
        """A dictionary needs no bucket."""

    def ping(self) -> None:
        """Memory is always there."""
