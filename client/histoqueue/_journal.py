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

_FORMAT = "1"
_PAGE = 256
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- `code` is NULL while the file is to be done, '' where it succeeded, else the reason of its failure.
CREATE TABLE IF NOT EXISTS items (
  path BLOB PRIMARY KEY, stamp TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, code TEXT, row TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending ON items (path) WHERE code IS NULL;
"""


class Item(NamedTuple):
    """A file that is to be done; `attempt` grows when it is to be done once more as a new job."""

    path: str
    attempt: int


class Entry(NamedTuple):
    """The outcome for one file: its row, and '' or the code of its failure."""

    path: str
    code: str
    row: Mapping[str, Any]


class Journal:
    """One run, open in one process at a time; use it in a `with` block, which keeps what is written.

    Raises:
        JournalError: if the file is no journal, belongs to a run with other options, or is in use.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.path = path
        self._db = sqlite3.connect(path, timeout=0.5, isolation_level=None)
        try:
            # Held until the file is closed or the process ends, however it ends.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            # What a power cut takes from a write-ahead log is its last entries; those are asked for again.
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("BEGIN EXCLUSIVE")
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
        for name, value in (("format", _FORMAT), ("run", uuid.uuid4().hex), ("options", stated)):
            self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        if meta["format"] != _FORMAT:
            raise JournalError(f"Expected {self.path} in format {_FORMAT}. Received: {meta['format']}")
        if meta["options"] != stated:
            raise JournalError(
                f"Expected the options that {self.path} was begun with, {meta['options']}. "
                f"Received: {stated}. Take another --out, or --restart to begin anew."
            )
        #: Every idempotency key of this run begins with it.
        self.run = meta["run"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.execute("COMMIT")
        self._db.close()

    def commit(self) -> None:
        """Keep what was written so far, whatever happens to this process."""
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def add(self, files: Iterable[Found]) -> None:
        """Note the files of the run; one that has changed since it was done is to be done again."""
        self._db.executemany(
            "INSERT INTO items (path, stamp) VALUES (?, ?) ON CONFLICT (path) DO UPDATE "
            "SET stamp = excluded.stamp, code = NULL, row = NULL WHERE stamp <> excluded.stamp",
            ((os.fsencode(path), stamp) for path, stamp in files),
        )
        self.commit()

    def retry_failed(self) -> None:
        """Let everything that failed be done again, as new jobs."""
        self._db.execute("UPDATE items SET attempt = attempt + 1, code = NULL, row = NULL WHERE code <> ''")
        self.commit()

    def pending(self) -> Iterator[Item]:
        """Yield what is to be done, a page at a time."""
        last = b""
        while True:
            page = self._db.execute(
                "SELECT path, attempt FROM items WHERE code IS NULL AND path > ? ORDER BY path LIMIT ?",
                (last, _PAGE),
            ).fetchall()
            if not page:
                return
            for path, attempt in page:
                yield Item(os.fsdecode(path), attempt)
            last = page[-1][0]

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


def discard(path: Path) -> None:
    """Delete a journal with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
