"""What a run of `histoqueue submit` has done so far, in a SQLite file: docs/decisions/ says why."""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ._errors import JournalError
from ._scan import Found

if TYPE_CHECKING:
    from typing_extensions import Self

_FORMAT = "2"
#: Its runs sent each file in a request of its own, and go on so: another request would make another job.
_FORMAT_WITHOUT_PARCELS = "1"
_PAGE = 256
_FIRST_FILES = 8
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- `code` is NULL while the file is to be done, '' where it succeeded, else the reason of its failure.
CREATE TABLE IF NOT EXISTS items (
  path BLOB PRIMARY KEY, stamp TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, code TEXT, row TEXT
) WITHOUT ROWID;
"""
#: Files of one parcel go in one request, which must be the same whenever it is sent again.
_PARCELS = """
ALTER TABLE items ADD COLUMN parcel INTEGER;
CREATE INDEX parcels ON items (parcel);
CREATE INDEX unsent ON items (path) WHERE code IS NULL AND parcel IS NULL;
"""


class Item(NamedTuple):
    """A file that is to be done; `attempt` grows when it is to be done once more as a new job."""

    path: str
    attempt: int
    #: Nothing is to be done for it: it only belongs to the parcel.
    is_done: bool = False
    #: What came of it before it was touched, if anything did.
    earlier: Mapping[str, Any] | None = None


class Entry(NamedTuple):
    """The outcome for one file: its row, and '' or the code of its failure."""

    path: str
    code: str
    row: Mapping[str, Any]


class Journal:
    """One run, open in one process at a time; use it in a `with` block, which keeps what is written.

    With `restart` it begins empty, whatever it held.

    Raises:
        JournalError: if the file is no journal, holds answers of a run with other options, or is in use.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], restart: bool = False) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=0.5, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise JournalError(f"Expected to open {path}. Received: {error}") from error
        try:
            # Held until the file is closed or the process ends, however it ends.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            # What a power cut takes from a write-ahead log is its last entries; those are asked for again.
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("BEGIN EXCLUSIVE")
            if restart:
                # Not by deleting the file, which another run may have open.
                self._db.execute("DROP TABLE IF EXISTS items")
                self._db.execute("DROP TABLE IF EXISTS meta")
            self._create(options)
            self.commit()
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.OperationalError):
                raise JournalError(f"Expected to have {path} alone. Received: {error}") from error
            if isinstance(error, sqlite3.DatabaseError):
                raise JournalError(f"Expected a journal in {path}. Received: {error}") from error
            raise

    def _create(self, options: Mapping[str, Any]) -> None:
        for statement in _TABLES.split(";"):
            self._db.execute(statement)
        stated = json.dumps(options, sort_keys=True)
        anew = {"format": _FORMAT, "run": uuid.uuid4().hex, "options": stated}
        self._db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", anew.items())
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        if meta["format"] not in (_FORMAT, _FORMAT_WITHOUT_PARCELS):
            raise JournalError(f"Expected {self.path} in format {_FORMAT}. Received: {meta['format']}")
        if "parcel" not in [column[1] for column in self._db.execute("PRAGMA table_info(items)")]:
            for statement in _PARCELS.split(";"):
                self._db.execute(statement)
        if meta["options"] != stated and not self._has_answers():
            # Another run: keys of this one may have been sent with the other options.
            self._db.execute("DELETE FROM items")
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", anew.items())
            meta = anew
        if meta["options"] != stated:
            raise JournalError(
                f"Expected the options that {self.path} was begun with, {meta['options']}. "
                f"Received: {stated}. Take another --out, or --restart to begin anew."
            )
        #: Every idempotency key of this run begins with it.
        self.run = meta["run"]
        #: Whether files may go several in a request.
        self.takes_parcels = meta["format"] != _FORMAT_WITHOUT_PARCELS

    def _has_answers(self) -> bool:
        return bool(self._db.execute("SELECT 1 FROM items WHERE row IS NOT NULL LIMIT 1").fetchone())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk has ended the transaction already.
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise JournalError(f"Expected to write to {self.path}. Received: {error}") from error

    def commit(self) -> None:
        """Keep what was written so far, whatever happens to this process."""
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def add(self, files: Iterable[Found]) -> None:
        """Note the files of the run; one that was touched since it was done is to be looked at again.

        One that is gone keeps what it has, whether or not it is among the files.
        """
        self._db.executemany(
            "INSERT INTO items (path, stamp) VALUES (?, ?) ON CONFLICT (path) DO UPDATE "
            "SET stamp = excluded.stamp, code = NULL, parcel = NULL "
            "WHERE stamp <> excluded.stamp AND (excluded.stamp <> '' OR code IS NULL)",
            ((os.fsencode(path), stamp) for path, stamp in files),
        )
        self.commit()

    def retry_failed(self) -> None:
        """Let everything that failed be done again, as new jobs.

        What could not even be asked for its size is forgotten: if it is still there, it is added again.
        """
        self._db.execute("DELETE FROM items WHERE stamp = '' AND code <> ''")
        self._db.execute(
            "UPDATE items SET attempt = attempt + 1, code = NULL, row = NULL, parcel = NULL WHERE code <> ''"
        )
        self.commit()

    def parcels(self, most_files: int, most_bytes: int) -> Iterator[list[Item]]:
        """Yield what is to be done, a parcel at a time: first those that an earlier call did not finish.

        Which files make a parcel is kept before it is yielded, so that it is the same parcel ever after.
        """
        begun = self._db.execute(
            "SELECT DISTINCT parcel FROM items WHERE code IS NULL AND parcel IS NOT NULL ORDER BY parcel"
        ).fetchall()
        for (number,) in begun:
            found = self._db.execute(
                "SELECT path, attempt, code, row FROM items WHERE parcel = ? ORDER BY path", (number,)
            )
            yield [_item(*columns) for columns in found.fetchall()]
        while packed := self._pack(most_files, most_bytes):
            yield from packed

    def _pack(self, most_files: int, most_bytes: int) -> list[list[Item]]:
        """Make parcels of a page of what is in none yet, in the order of the paths."""
        page = self._db.execute(
            "SELECT path, attempt, code, row, stamp FROM items WHERE code IS NULL AND parcel IS NULL "
            "ORDER BY path LIMIT ?",
            (max(_PAGE, most_files),),
        ).fetchall()
        (number,) = self._db.execute("SELECT coalesce(max(parcel), 0) FROM items").fetchone()
        packed: list[list[Item]] = []
        places, bytes_left, numbers = 0, 0, []
        for path, attempt, code, row, stamp in page:
            size = _size_in(stamp)
            if not places or size > bytes_left:
                packed.append([])
                number += 1
                places, bytes_left = min(most_files, _most_in(number)), most_bytes
            packed[-1].append(_item(path, attempt, code, row))
            places -= 1
            bytes_left -= size
            numbers.append((number, path))
        self._db.executemany("UPDATE items SET parcel = ? WHERE path = ?", numbers)
        self.commit()
        return packed

    def record(self, entry: Entry) -> None:
        """Write what became of a file; kept from the next `commit` on."""
        row = json.dumps(entry.row, separators=(",", ":"))
        self._db.execute(
            "UPDATE items SET code = ?, row = ? WHERE path = ?", (entry.code, row, os.fsencode(entry.path))
        )

    def counts(self) -> dict[str | None, int]:
        """Return how many files there are by code; None counts those that are to be done."""
        return dict(self._db.execute("SELECT code, count(*) FROM items GROUP BY code"))

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield each file that is done with its row, in the order of the paths."""
        found = self._db.execute("SELECT path, row FROM items WHERE code IS NOT NULL ORDER BY path")
        for path, row in found:
            yield os.fsdecode(path), json.loads(row)


def _item(path: bytes, attempt: int, code: str | None, row: str | None) -> Item:
    is_done = code is not None
    return Item(os.fsdecode(path), attempt, is_done, None if is_done or row is None else json.loads(row))


def _most_in(number: int) -> int:
    """Return how many files the parcel of this number may have: the first ones are small, to be there soon.

    By its number, not by what this call has made: a journal that lost its last entries makes the same again.
    """
    return _FIRST_FILES << min(number - 1, 10)


def _size_in(stamp: str) -> int:
    """Return the bytes of a file by its stamp; 0 where they could not be asked."""
    size = stamp.partition(":")[0]
    return int(size) if size.isdigit() else 0
