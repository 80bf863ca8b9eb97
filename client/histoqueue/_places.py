"""Where on the slide a tile lies, from its file name or from a table."""

from __future__ import annotations

import csv
import math
import re
import sqlite3
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

from ._export import printable


@dataclass(frozen=True)
class Place:
    """The upper left corner of a tile, and its size where stated; pixels of the slide at full resolution."""

    x: float
    y: float
    width: float | None = None
    height: float | None = None


class Places(Protocol):
    """Finds the place of a file."""

    def of(self, path: str) -> Place | None:
        """Return where the tile in this file lies; None where that is not known."""


class NamePattern:
    r"""Places that the file names state.

    >>> NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)").of("slide 7/x1024_y512.png")
    Place(x=1024.0, y=512.0, width=None, height=None)

    Args:
        pattern: a regular expression with the groups x and y, and w and h if the names tell the size;
            searched in the whole path, the last match counts.

    Raises:
        ValueError: if it is no regular expression with those groups.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"Expected a regular expression. Received: {pattern!r} ({error})") from error
        if not {"x", "y"} <= set(self._pattern.groupindex):
            raise ValueError(f"Expected a pattern with (?P<x>...) and (?P<y>...). Received: {pattern!r}")

    def of(self, path: str) -> Place | None:
        """Return where the tile lies; None where the name does not match."""
        matches = list(self._pattern.finditer(path))
        if not matches:
            return None
        groups = matches[-1].groupdict()
        return _place(groups["x"], groups["y"], groups.get("w"), groups.get("h"))


class Manifest:
    """Places from a CSV file with the columns file, x, y, and w and h if it tells the size.

    `file` is the whole path, or as much of its end as tells the files apart. The table is kept in a
    temporary file of SQLite, not in memory.

    Raises:
        ValueError: if it is no table, a column is missing or a number is none.
        OSError: if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        # An empty name is a private database on disk.
        self._db = sqlite3.connect("", check_same_thread=False)
        # Whoever is the last to hold this, and in which thread: its file goes with it.
        weakref.finalize(self, self._db.close)
        self._db.execute("CREATE TABLE places (file TEXT PRIMARY KEY, x, y, w, h) WITHOUT ROWID")
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = _table(path, file)
            try:
                self._db.executemany("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?)", lines)
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"Expected a table in {path}. Received: {error}") from error

    def of(self, path: str) -> Place | None:
        """Return where the tile lies; None where no line names its file."""
        # As the results show it: SQLite takes no name that is no text.
        parts = PurePath(printable(path)).parts
        for start in range(len(parts)):
            name = PurePath(*parts[start:]).as_posix()
            found = self._db.execute("SELECT x, y, w, h FROM places WHERE file = ?", (name,)).fetchone()
            if found:
                return Place(*found)
        return None


def _table(path: Path, file: Iterator[str]) -> Iterator[tuple[str, float, float, float | None, float | None]]:
    reader = csv.DictReader(file)
    if not {"file", "x", "y"} <= set(reader.fieldnames or ()):
        raise ValueError(f"Expected the columns file, x, y in {path}. Received: {reader.fieldnames}")
    for line in reader:
        place = _place(line["x"], line["y"], line.get("w"), line.get("h"))
        if place is None or line["file"] is None:
            expected = f"a file's name and numbers in line {reader.line_num} of {path}"
            raise ValueError(f"Expected {expected}. Received: {line}")
        yield PurePath(line["file"]).as_posix(), place.x, place.y, place.width, place.height


def _place(x: str | None, y: str | None, width: str | None, height: str | None) -> Place | None:
    try:
        return Place(
            _number(x or ""),
            _number(y or ""),
            _number(width) if width else None,
            _number(height) if height else None,
        )
    except ValueError:
        return None


def _number(text: str) -> float:
    """Return a number that JSON can hold, which `nan` and `inf` are not."""
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number
