"""The items of a batch out of a request's body: many files, one archive, or keys of the bucket.

What comes in lies in a temporary file; of an item no more than its name and its place stay in memory.
"""

import hashlib
import json
import threading
from io import BytesIO
from typing import BinaryIO

from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from api.batch_archive import ArchiveIntake, is_archive
from api.batch_items import Intake, Item, checked_name, is_plain, too_many
from api.body import BLOCK_BYTES, UploadRequest
from api.uploads import FIELD, too_large
from shared.errors import BatchTooLarge, InvalidItem, InvalidRequest, UnsupportedImageFormat
from shared.object_store import ObjectStore
from shared.settings import Settings

#: All text fields of a form together.
_MOST_FIELD_BYTES = 65_536
_MOST_FIELDS = 16
#: A body of keys, by the length that an object's key may have.
_MOST_KEY_BYTES = 1100
#: So many brackets, braces and commas for each of its items, those in names included.
_MOST_SIGNS = 16


def receive(
    request: UploadRequest, settings: Settings, objects: ObjectStore
) -> tuple[Intake, MultiDict[str, str]]:
    """Read the request's body; return its items, and the options among its form fields.

    Raises:
        InvalidRequest: if it is malformed, breaks off, or has no item.
        BatchTooLarge: as soon as it has more bytes or items than it may.
        UnsupportedImageFormat: if it is declared as something else.
    """
    request.max_content_length = most = settings.max_batch_bytes
    fields: MultiDict[str, str] = MultiDict()
    intake: Intake
    if request.mimetype == "multipart/form-data":
        files = _FormReader(request, settings).read(fields)
        intake = _unpacked(files, settings) if len(files.items) == 1 else files
    elif request.mimetype == "application/zip":
        intake = ArchiveIntake(request.spooled(most, _too_large(most)), settings)
    elif request.mimetype == "application/json":
        most = min(most, settings.max_batch_items * _MOST_KEY_BYTES)
        intake = KeysIntake(request.spooled(most, _too_large(most)).read(), settings, objects)
    elif not request.mimetype and not request.read_block(_too_large(most)):
        raise InvalidRequest("Expected a form, an archive or a list of keys. Received: no body")
    else:
        raise UnsupportedImageFormat(
            "Expected multipart/form-data, application/zip or application/json. "
            f"Received: {request.mimetype[:80]!r}"
        )
    if not intake.items:
        raise InvalidRequest("Expected at least one item. Received: none, or a form that breaks off")
    return intake, fields


class FilesIntake:
    """Files of a form, one behind the other in one temporary file."""

    def __init__(self, spool: BinaryIO, most_bytes: int) -> None:
        """`most_bytes` is what one image may have."""
        self.items: list[Item] = []
        self.fingerprint = ""
        self.spool = spool
        self._most_bytes = most_bytes
        self._lock = threading.Lock()

    def open(self, item: Item) -> BinaryIO:
        """Return a copy of the item's part of the file."""
        if item.size > self._most_bytes:
            raise too_large(self._most_bytes)
        with self._lock:
            self.spool.seek(item.start)
            return BytesIO(self.spool.read(item.size))


def _unpacked(files: FilesIntake, settings: Settings) -> Intake:
    """Return the items of an archive, where that is the one file of a form."""
    files.spool.seek(0)
    return ArchiveIntake(files.spool, settings) if is_archive(files.spool) else files


class _FormReader:
    """Reads a form without keeping its parts in memory, which Werkzeug's own reader does."""

    def __init__(self, request: UploadRequest, settings: Settings) -> None:
        boundary = request.mimetype_params.get("boundary", "")
        if not boundary:
            raise InvalidRequest("Expected multipart/form-data with a boundary. Received: none")
        # It holds a part's head, or the end of a block that may begin a boundary, and the next block.
        most_held = _MOST_FIELD_BYTES + BLOCK_BYTES
        self._decoder = MultipartDecoder(boundary.encode("latin-1", "replace"), most_held)
        self._request = request
        self._settings = settings
        self._intake = FilesIntake(request.spool(), settings.max_image_bytes)
        self._digest = hashlib.sha256()
        self._field: tuple[str, bytearray] | None = None
        self._field_bytes = 0

    def read(self, fields: MultiDict[str, str]) -> FilesIntake:
        """Return the files; text goes to `fields`.

        Raises:
            InvalidRequest: if the form breaks off, or has a file in another field.
            BatchTooLarge: as `receive`.
        """
        while block := self._request.read_block(_too_large(self._settings.max_batch_bytes)):
            if self._take(block, fields):
                break
        else:
            self._take(None, fields)
        self._intake.fingerprint = self._digest.hexdigest()
        return self._intake

    def _take(self, block: bytes | None, fields: MultiDict[str, str]) -> bool:
        """Take in a block; None says that it was the last. Return whether the form is at its end."""
        try:
            self._decoder.receive_data(block)
            while not isinstance(event := self._decoder.next_event(), (NeedData, Epilogue)):
                if isinstance(event, File):
                    self._begin_file(event)
                elif isinstance(event, Field):
                    self._field = (event.name, bytearray())
                elif isinstance(event, Data):
                    self._write(event, fields)
        except (ValueError, RequestEntityTooLarge) as error:
            raise InvalidRequest("Expected a whole, well-formed form. It is not; send it again.") from error
        return isinstance(event, Epilogue)

    def _begin_file(self, event: File) -> None:
        self._field = None
        items = self._intake.items
        if event.name != FIELD:
            # A part may have no name at all.
            raise InvalidRequest(
                f"Expected files in the field {FIELD!r} alone. Received: {(event.name or '')[:40]!r}"
            )
        if len(items) >= self._settings.max_batch_items:
            raise too_many(self._settings.max_batch_items)
        name, problem = checked_name(event.filename or "", len(items))
        items.append(Item(name, start=self._intake.spool.seek(0, 2), problem=problem))
        self._digest.update(f"\0{name}\0".encode("utf-8", "surrogatepass"))

    def _write(self, event: Data, fields: MultiDict[str, str]) -> None:
        if self._field is not None:
            name, text = self._field
            self._field_bytes += len(event.data)
            if self._field_bytes > _MOST_FIELD_BYTES:
                raise InvalidRequest(f"Expected options of at most {_MOST_FIELD_BYTES} bytes. Received: more")
            text += event.data
            if not event.more_data:
                if len(list(fields.items(multi=True))) >= _MOST_FIELDS:
                    raise InvalidRequest("Expected a few options. Received: more")
                fields.add(name, text.decode("utf-8", "replace"))
            return
        item = self._intake.items[-1]
        item.size += len(event.data)
        self._digest.update(event.data)
        # One archive may be larger than an image; that is looked at when the form is whole.
        if item.size > self._settings.max_image_bytes and len(self._intake.items) > 1:
            item.problem = item.problem or too_large(self._settings.max_image_bytes)
            return
        self._intake.spool.write(event.data)


class KeysIntake:
    """Objects of the bucket, below the one prefix that may be named."""

    def __init__(self, body: bytes, settings: Settings, objects: ObjectStore) -> None:
        """Read `{"keys": [...]}`; each is a key, or an object with `key` and `custom_id`."""
        prefix = settings.batch_key_prefix
        if prefix is None:
            raise InvalidRequest(
                "Expected files or an archive. Keys are not taken here: no prefix is allowed."
            )
        most_signs = _MOST_SIGNS * (settings.max_batch_items + 1)
        if sum(map(body.count, (b"[", b"{", b","))) > most_signs:
            # Each may stand for something that takes sixty bytes of memory.
            raise InvalidRequest(f"Expected at most {most_signs} brackets, braces and commas. Received: more")
        self._objects = objects
        self._most_bytes = settings.max_image_bytes
        self._keys: list[str] = []
        self.items: list[Item] = []
        for given in _listed(body):
            if len(self.items) >= settings.max_batch_items:
                raise too_many(settings.max_batch_items)
            key, name = (given, None) if isinstance(given, str) else (given["key"], given.get("custom_id"))
            shown, problem = checked_name(key.removeprefix(prefix) if name is None else name, len(self.items))
            if not key.startswith(prefix) or not is_plain(key):
                problem = InvalidItem(
                    f"Expected a key below {prefix}, of plain names. Received: {key[:100]!r}"
                )
            self.items.append(Item(shown, start=len(self._keys), problem=problem))
            self._keys.append(key)
        self.fingerprint = hashlib.sha256(body).hexdigest()

    def open(self, item: Item) -> BinaryIO:
        """Fetch the object."""
        key = self._keys[item.start]
        try:
            return BytesIO(self._objects.get(key, self._most_bytes))
        except FileNotFoundError:
            raise InvalidItem(f"Expected an object. There is none at {key[:100]!r}") from None
        except ValueError:
            raise too_large(self._most_bytes) from None


def _listed(body: bytes) -> list[str | dict[str, str]]:
    try:
        given = json.loads(body, object_pairs_hook=_members)
        keys = given["keys"]
        whole = (
            len(given) == 1
            and isinstance(keys, list)
            and all(
                isinstance(item, str)
                or (
                    isinstance(item, dict)
                    and item.keys() <= {"key", "custom_id"}
                    and isinstance(item.get("key"), str)
                    and isinstance(item.get("custom_id", ""), str)
                )
                for item in keys
            )
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise InvalidRequest(
            'Expected {"keys": [...]} alone, each a key or {"key": ..., "custom_id": ...}, no member twice;'
            " options are query parameters. Received: something else"
        )
    found: list[str | dict[str, str]] = keys
    return found


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON; one that says a member twice is a ValueError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _too_large(most_bytes: int) -> BatchTooLarge:
    return BatchTooLarge(f"Expected at most {most_bytes} bytes. Received: more")
