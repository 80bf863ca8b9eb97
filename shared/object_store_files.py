"""Objects as files below a folder, for one machine: no server between, and laid out as rclone does it."""

import ctypes
import errno
import os
import secrets
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from itertools import islice, takewhile
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from shared.errors import ObjectStoreUnavailable
from shared.object_store import NewObject, StoredObject

#: Where objects lie while they are written, beside the buckets.
PARTIAL = ".partial"
#: What a name that no file has is answered with: a folder's, one below a file, one that no file can have.
_NO_FILE = frozenset({errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG})
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
#: An upload is taken over in pieces of this size.
_BLOCK_BYTES = 1_048_576
#: As long as a tile: a shorter one may find room where a tile does not.
_PROBE = bytes(65_536)
#: Python has no `syncfs` of its own.
_LIBC = ctypes.CDLL(None, use_errno=True)


class FileObjectStore:
    """See `shared.object_store.ObjectStore` for what each method promises."""

    def __init__(self, root: Path, bucket: str) -> None:
        """`root` holds the buckets, a folder each; API and workers see the same one."""
        self._bucket = root / bucket
        self._partial = root / PARTIAL

    def put(self, key: str, body: bytes | BinaryIO, content_type: str) -> None:  # noqa: ARG002 - files have none
        path, partial = self._path(key), self._partial_path()
        with _answering(), _removing_on_failure([partial]):
            self._write(partial, body, is_synced=True)
            self._move(partial, path)
            _sync(path.parent)

    def put_all(self, objects: Sequence[NewObject], pool: Executor) -> None:  # noqa: ARG002 - no answer to wait for
        paths = [self._path(new.key) for new in objects]
        partials = [self._partial_path() for _ in objects]
        with _answering(), _removing_on_failure(partials):
            for new, partial in zip(objects, partials, strict=True):
                self._write(partial, new.body, is_synced=False)
            _sync_all(partials)
            for partial, path in zip(partials, paths, strict=True):
                self._move(partial, path)
            _sync_all({path.parent for path in paths})

    def _partial_path(self) -> Path:
        """Return where an object lies until it is whole."""
        return self._partial / secrets.token_hex(16)

    def _write(self, partial: Path, body: bytes | BinaryIO, is_synced: bool) -> None:
        try:
            descriptor = os.open(partial, _NEW_FILE, 0o666)
        except FileNotFoundError:
            self._check_bucket()
            self._make_partial_folder()
            descriptor = os.open(partial, _NEW_FILE, 0o666)
        try:
            for block in [body] if isinstance(body, bytes) else iter(lambda: body.read(_BLOCK_BYTES), b""):
                _write_whole(descriptor, block)
            if is_synced:
                # On the disk before anybody is told that it is stored.
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _move(self, partial: Path, path: Path) -> None:
        try:
            # As if its folder were there, as it nearly always is: each look is a wait for other threads.
            partial.replace(path)
        except (FileNotFoundError, NotADirectoryError):
            self._check_bucket()
            _make_folder(path.parent)
            partial.replace(path)

    def _make_partial_folder(self) -> None:
        self._partial.mkdir(exist_ok=True)

    def get(self, key: str, max_bytes: int) -> bytes:
        path = self._path(key)
        with _answering(missing_is_an_answer=True):
            try:
                # Python's own files ask the system six things more, each a wait for other threads.
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    size = _size(descriptor)
                    if size > max_bytes:
                        raise ValueError(f"Expected at most {max_bytes} bytes at {key}. Found: {size}")
                    return _read_whole(descriptor, size)
                finally:
                    os.close(descriptor)
            except OSError as error:
                if error.errno not in _NO_FILE:
                    raise
                self._check_bucket()
                raise FileNotFoundError(key) from error

    def delete(self, key: str) -> None:
        # The folder stays, also when it is empty: somebody may be about to write into it.
        with _answering():
            try:
                self._path(key).unlink()
            except FileNotFoundError:
                self._check_bucket()

    def list_keys(self, prefix: str) -> list[str]:
        return [item.key for item in self.walk(prefix)]

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        self._check_bucket()
        folder = prefix.rpartition("/")[0]
        yield from self._walk(self._path(folder) if folder else self._bucket, prefix)

    def remove_partial(self, older_than_seconds: float) -> None:
        with _answering():
            for entry in _scan(self._partial):
                with suppress(FileNotFoundError):
                    if time.time() - entry.stat().st_mtime > older_than_seconds:
                        Path(entry.path).unlink()

    def ensure_bucket(self) -> None:
        with _answering():
            self._bucket.mkdir(parents=True, exist_ok=True)

    def ping(self) -> None:
        self._check_bucket()
        # A full disk answers every question but this one.
        with _answering():
            self._make_partial_folder()
            with TemporaryFile(dir=self._partial) as file:
                file.write(_PROBE)

    def _check_bucket(self) -> None:
        # A disk that is not mounted holds nothing either. That is no answer: it does not say that an image is
        # lost, nor that there is no API key.
        if not self._bucket.is_dir():
            raise ObjectStoreUnavailable("The object store has no such bucket. Ask again later.")

    def _walk(self, folder: Path, prefix: str) -> Iterator[StoredObject]:
        with _answering():
            # By whole keys, in which a folder's name goes on with a slash.
            entries = sorted(_scan(folder), key=lambda entry: entry.name + "/" * entry.is_dir())
        for entry in entries:
            key = Path(entry.path).relative_to(self._bucket).as_posix()
            if entry.is_dir():
                if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                    yield from self._walk(Path(entry.path), prefix)
            elif key.startswith(prefix):
                try:
                    yield StoredObject(key, entry.stat().st_mtime_ns // 1_000_000)
                except FileNotFoundError:
                    continue  # deleted in this moment

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\0" in key:
            raise ValueError(f"Expected a key of plain names. Received: {key[:100]!r}")
        return self._bucket.joinpath(*parts)


def _scan(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(descriptor: int) -> int:
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return status.st_size


def _read_whole(descriptor: int, size: int) -> bytes:
    content = os.read(descriptor, size)
    while len(content) < size and (block := os.read(descriptor, size - len(content))):
        content += block
    return content


def _write_whole(descriptor: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        # A disk that is nearly full takes less than it is given, and says so the next time.
        left = left[os.write(descriptor, left) :]


@contextmanager
def _removing_on_failure(partials: Sequence[Path]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for partial in partials:
            partial.unlink(missing_ok=True)
        raise


def _make_folder(folder: Path) -> None:
    made = list(takewhile(lambda folder: not folder.exists(), [folder, *folder.parents]))
    folder.mkdir(parents=True, exist_ok=True)
    for new in made:
        # Its name, too: a file in a folder that nobody finds again is lost.
        _sync(new.parent)


def _sync(path: Path) -> None:
    """Have the disk know a file's content, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_all(paths: Collection[Path]) -> None:
    """Do so with several of one file system: in one go, where the system can."""
    if not hasattr(_LIBC, "syncfs"):
        for path in paths:
            _sync(path)
        return
    for path in islice(paths, 1):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if _LIBC.syncfs(descriptor):
                raise OSError(ctypes.get_errno(), "The file system could not be written to the disk.")
        finally:
            os.close(descriptor)


@contextmanager
def _answering(missing_is_an_answer: bool = False) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        if missing_is_an_answer:
            raise
        raise ObjectStoreUnavailable("The object store's folder is not there. Ask again later.") from None
    except OSError as error:
        # Why, and not where: the whole text names a path of this machine, and is for the log.
        raise ObjectStoreUnavailable(
            f"The object store cannot be read or written: {error.strerror or 'no reason'}. Ask again later."
        ) from error
