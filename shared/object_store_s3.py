"""Objects in any S3.

Works on servers that keep no user metadata, ignore conditional writes and know no lifecycle rules, as
`rclone serve s3` does.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, SSLError
from botocore.handlers import add_expect_header

from shared.errors import ObjectStoreUnavailable
from shared.object_store import NewObject, Patience, StoredObject, put_each

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: An internal error that took no more than this share of the patience is worth another try.
HICCUP_SHARE = 0.3
#: A bucket that is not there is not among them: its objects would be taken for lost, and their jobs ended.
_MISSING = {"NoSuchKey", "404", "NotFound"}
_OURS_ALREADY = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


@dataclass(frozen=True)
class S3Options:
    """What some buckets want beside a name."""

    #: In front of every key; empty, or ends in a slash.
    prefix: str = ""
    #: The authorities that the server's certificate is checked by; None means the system's.
    ca_file: str | None = None
    #: How the server encrypts: "AES256", "aws:kms" or "aws:kms:dsse"; None leaves it to the bucket.
    encryption: str | None = None
    #: The key of the last two; None means the account's own.
    kms_key_id: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What goes with each put, in boto3's words."""
        named = {"ServerSideEncryption": self.encryption, "SSEKMSKeyId": self.kms_key_id}
        return {name: value for name, value in named.items() if value}


class S3ObjectStore:
    """An S3 bucket, or a part of one; credentials come from boto3's usual chain.

    See `shared.object_store.ObjectStore` for what each method promises.
    """

    def __init__(
        self,
        bucket: str,
        endpoint_url: str | None,
        region: str,
        patience: Patience,
        connections: int = 32,
        options: S3Options | None = None,
    ) -> None:
        """`endpoint_url` None means AWS S3; `connections` is the size of the pool, one for each thread."""
        self._bucket = bucket
        self._place = endpoint_url or f"AWS S3 ({region})"
        self._region = region
        self._options = options or S3Options()
        self._prefix = self._options.prefix
        self._hiccup_seconds = HICCUP_SHARE * patience.read_seconds
        # A session of its own: the default one is shared by threads and keeps the first credentials it saw.
        self._client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            verify=self._options.ca_file,
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
                # The default is put together anew for each request, a tenth of what a small put costs.
                user_agent="histoqueue",
            ),
        )
        # Asking the server first whether it wants the body costs another tenth.
        self._client.meta.events.unregister("before-call.s3", add_expect_header)

    def put(self, key: str, body: bytes | BinaryIO, content_type: str) -> None:
        file = BytesIO(body) if isinstance(body, bytes) else body
        start, began = file.tell(), time.monotonic()
        with self._answering():
            try:
                self._put(key, file, content_type)
            except ClientError as error:
                if not _is_hiccup(error) or time.monotonic() - began > self._hiccup_seconds:
                    raise
                file.seek(start)
                self._put(key, file, content_type)

    def put_all(self, objects: Sequence[NewObject], pool: Executor) -> None:
        put_each(self, objects, pool)

    def _put(self, key: str, file: BinaryIO, content_type: str) -> None:
        answer = self._client.put_object(
            Bucket=self._bucket,
            Key=self._prefix + key,
            Body=file,
            ContentType=content_type,
            **self._options.headers,  # type: ignore[arg-type]  # names and words that the settings have checked
        )
        _expect(answer, "ETag")

    def get(self, key: str, max_bytes: int) -> bytes:
        with self._answering(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            with answer["Body"] as stream:
                _expect(answer, "ETag")
                if answer["ContentLength"] > max_bytes:
                    raise ValueError(
                        f"Expected at most {max_bytes} bytes at {key}. Found: {answer['ContentLength']}"
                    )
                return stream.read()

    def delete(self, key: str) -> None:
        with self._answering():
            _expect_deletion(self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key))

    def list_keys(self, prefix: str) -> list[str]:
        return sorted(item.key for item in self.walk(prefix))

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        listing = self._client.get_paginator("list_objects_v2")
        pages = iter(listing.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix))
        while True:
            with self._answering():
                page = next(pages, None)
                if page is None:
                    return
                _expect(page, "Name")
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(self._prefix)
                yield StoredObject(key, int(item["LastModified"].timestamp() * 1000))

    def remove_partial(self, older_than_seconds: float) -> None:
        # A put is one request: the server keeps all of it, or nothing.
        pass

    def ensure_bucket(self) -> None:
        with self._answering():
            try:
                # A user of one bucket may look at it, and seldom at the list of all.
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if _status(error) != HTTPStatus.NOT_FOUND:
                    raise
                self._create_bucket()

    def _create_bucket(self) -> None:
        # AWS wants the region of every bucket but those of the first one; other servers do not know the word.
        elsewhere = self._place.startswith("AWS") and self._region != "us-east-1"
        where = {"CreateBucketConfiguration": {"LocationConstraint": self._region}} if elsewhere else {}
        try:
            self._client.create_bucket(Bucket=self._bucket, **where)  # type: ignore[arg-type]
        except ClientError as error:
            if error.response["Error"]["Code"] not in _OURS_ALREADY:  # somebody else made it just now
                raise

    def ping(self) -> None:
        with self._answering():
            self._client.head_bucket(Bucket=self._bucket)

    @contextmanager
    def _answering(self, key: str | None = None) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if key is not None and error.response["Error"]["Code"] in _MISSING:
                raise FileNotFoundError(key) from error
            raise ObjectStoreUnavailable("The object store refused. Ask again later.") from self._explained(
                error
            )
        except (BotoCoreError, OSError, RecursionError) as error:
            # The text names the server's address: for the log, not for a client.
            raise ObjectStoreUnavailable(
                "The object store does not answer. Ask again later."
            ) from self._explained(error)

    def _explained(self, error: Exception) -> Exception:
        """Return the cause in the operator's words, on one line."""
        explained = OSError(self._why(error))
        explained.__cause__ = error
        return explained

    def _why(self, error: Exception) -> str:
        here = f"bucket {self._bucket} at {self._place}"
        if isinstance(error, NoCredentialsError):
            return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
        if isinstance(error, SSLError):
            return f"the certificate of {self._place} is not trusted: set S3_CA_FILE ({error})"
        if not isinstance(error, ClientError):
            # boto3 asks anew at each redirection, whoever makes it.
            said = "it redirects every request" if _is_endless(error) else error
            return f"{self._place} does not answer ({said})"
        code = error.response["Error"]["Code"]
        if _status(error) == HTTPStatus.NOT_FOUND:
            return f"{here} does not exist: create it, or set another ({code})"
        if _status(error) == HTTPStatus.FORBIDDEN:
            return f"{here}: wrong credentials, or without the right to {error.operation_name} ({code})"
        return f"{here}: {error}"


def _expect(answer: Mapping[str, Any], name: str) -> None:
    """Refuse an answer that is no S3 server's: a login page of the network between says 200 to everything.

    By it an image was stored, no key was ever made, and no job had an outcome.
    """
    if name not in answer:
        raise OSError(f"expected an answer with {name}, as of S3. Received: something else")


def _expect_deletion(answer: Mapping[str, Any]) -> None:
    """Do the same where S3 says nothing: it does so by 204, and never by a page."""
    said = answer["ResponseMetadata"]
    if said["HTTPStatusCode"] == HTTPStatus.OK and "html" in said["HTTPHeaders"].get("content-type", ""):
        raise OSError("expected an answer to a deletion, as of S3. Received: a page")


def _is_endless(error: BaseException | None) -> bool:
    """Tell whether an error comes of a recursion without end, whoever of those who were called took it up."""
    while error is not None and not isinstance(error, RecursionError):
        error = error.__cause__ or error.__context__
    return error is not None


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _is_hiccup(error: ClientError) -> bool:
    """Tell an internal error of the server, such as rclone's when a write meets the removal of its folder.

    rclone removes a folder with the last object in it; one write in some hundreds fails where writes and
    deletions of the same folder's only objects go on at the same time.
    """
    return _status(error) == HTTPStatus.INTERNAL_SERVER_ERROR
