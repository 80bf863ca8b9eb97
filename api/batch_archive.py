"""A zip file as the items of a batch; nothing in it is trusted, nothing unpacked to a name of its own."""

import hashlib
import struct
import zipfile
import zlib
from io import BytesIO
from typing import BinaryIO

from api.batch_items import Item, checked_name, is_plain, too_many
from api.uploads import too_large
from shared.errors import BatchTooLarge, HistoQueueError, InvalidItem, InvalidRequest
from shared.settings import Settings

#: An entry that unpacks to more than this and to so many times its packed size is no image that anybody made.
MOST_RATIO = 200
_SMALL_BYTES = 1_000_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED, _UTF_8 = 0x1, 0x800
#: What an entry takes in the archive's list beside its name; and a name, with what tools add.
_MOST_LISTED_BYTES = 1_000
_END, _END_BYTES, _MOST_COMMENT = b"PK\5\6", 22, 65_535
_END64, _LOCATOR64, _LOCATOR64_BYTES = b"PK\6\6", b"PK\6\7", 20


def is_archive(file: BinaryIO) -> bool:
    """Tell whether a file goes on as a zip file begins."""
    return file.read(4) in (b"PK\3\4", _END)


class ArchiveIntake:
    """The files of a zip archive; each is unpacked alone, in memory, when it is asked for."""

    def __init__(self, file: BinaryIO, settings: Settings) -> None:
        """`file` is seekable.

        Raises:
            InvalidRequest: if it is no archive that can be read.
            BatchTooLarge: if it lists more items than it may, or would unpack to more bytes.
        """
        self._settings = settings
        file.seek(0)
        self.fingerprint = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto
        _check_list(file, settings.max_batch_items)
        try:
            self._archive = zipfile.ZipFile(file)
            self._entries = [entry for entry in self._archive.infolist() if not entry.is_dir()]
        # Broken archives raise almost anything.
        except Exception as error:
            raise InvalidRequest(
                "Expected a whole zip file. Its list cannot be read; pack it again."
            ) from error
        if len(self._entries) > settings.max_batch_items:
            raise too_many(settings.max_batch_items)
        self.items = self._listed()
        total = sum(item.size for item in self.items)
        if total > settings.max_batch_bytes:
            raise BatchTooLarge(
                f"Expected at most {settings.max_batch_bytes} bytes, unpacked. The archive states: {total}"
            )

    def _listed(self) -> list[Item]:
        items, free_from = [], 0
        by_place = sorted(enumerate(self._entries), key=lambda numbered: numbered[1].header_offset)
        for number, entry in by_place:
            name, problem = checked_name(_name(entry), number)
            problem = problem or self._problem(entry, overlaps=entry.header_offset < free_from)
            free_from = max(free_from, entry.header_offset + entry.compress_size)
            items.append(Item(name, start=number, size=0 if problem else entry.file_size, problem=problem))
        return sorted(items, key=lambda item: item.start)

    def _problem(self, entry: zipfile.ZipInfo, overlaps: bool) -> HistoQueueError | None:
        """Return why an entry is not even opened."""
        if not is_plain(entry.orig_filename):
            return InvalidItem(
                "Expected a path inside the archive, of plain names. Received: one that leads out"
            )
        if overlaps:
            return InvalidItem("Expected files side by side. Received: one that lies inside another")
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
            return InvalidItem("Expected a file that is stored or deflated, without a password.")
        if entry.file_size > self._settings.max_image_bytes:
            return too_large(self._settings.max_image_bytes)
        if entry.file_size > max(_SMALL_BYTES, MOST_RATIO * entry.compress_size):
            return InvalidItem(
                f"Expected a file that unpacks to at most {MOST_RATIO} times its size. Received: "
                f"{entry.compress_size} bytes for {entry.file_size}"
            )
        return None

    def open(self, item: Item) -> BinaryIO:
        """Unpack the item; never to more bytes than the archive states."""
        entry = self._entries[item.start]
        try:
            with self._archive.open(entry) as packed:
                body = packed.read(self._settings.max_image_bytes + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
            raise InvalidItem("Expected a file that unpacks whole. It does not; pack it again.") from error
        return BytesIO(body)


def _name(entry: zipfile.ZipInfo) -> str:
    """Return an entry's name, which `zipfile` takes for code page 437 where nothing is said."""
    if not entry.flag_bits & _UTF_8:
        try:
            # Most tools write what the system does.
            return entry.filename.encode("cp437").decode()
        except ValueError:
            pass
    return entry.filename


def _check_list(file: BinaryIO, most_items: int) -> None:
    """Look at how long the archive's list is before anything reads it: `zipfile` takes it all into memory."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES - _MOST_COMMENT - _LOCATOR64_BYTES))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise InvalidRequest("Expected a whole zip file. It has no end; send it again.")
    listed, listed_bytes = struct.unpack_from("<HI", tail, at + 10)
    locator = tail[max(0, at - _LOCATOR64_BYTES) : at]
    if locator[:4] == _LOCATOR64:
        file.seek(min(size, struct.unpack_from("<Q", locator, 8)[0]))
        end64 = file.read(56)
        if len(end64) == 56 and end64[:4] == _END64:
            listed, listed_bytes = struct.unpack_from("<QQ", end64, 32)
    # Folders are listed, too.
    if listed > 2 * most_items or listed_bytes > most_items * _MOST_LISTED_BYTES:
        raise too_many(most_items)
