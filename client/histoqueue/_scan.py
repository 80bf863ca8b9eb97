"""Which files a run is about: folders, files, patterns, and lists on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

#: In a folder, only these are taken; a file that is named itself is taken whatever it is called.
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


class Found(NamedTuple):
    """A file, and by what it is known again: its size and time of change, empty where it cannot be asked."""

    path: str
    stamp: str


def check(sources: Iterable[str]) -> None:
    """Return if each source is there.

    Raises:
        ValueError: as `scan`, which is told only when it comes to that source.
    """
    for source in sources:
        if source != "-" and not os.path.lexists(source):
            next(_pattern(source))


def scan(sources: Iterable[str]) -> Iterator[Found]:
    """Yield every file of the sources, one at a time; `-` stands for paths on standard input, one a line.

    A folder's hidden files are left out, and its links to folders are not followed. A folder that cannot be
    read is yielded itself, so that it becomes a row with its error.

    Raises:
        ValueError: if a source is neither there nor a pattern that something matches.
    """
    for source in sources:
        if source == "-":
            # Standard input that is closed is None.
            for line in sys.stdin or ():
                if path := line.rstrip("\r\n"):
                    yield _found(path)
        elif Path(source).is_dir():
            yield from _folder(source)
        elif os.path.lexists(source):
            yield _found(source)
        else:
            yield from _pattern(source)


def _pattern(source: str) -> Iterator[Found]:
    is_empty = True
    # A Path has no patterns that begin at the root.
    for path in glob.iglob(source, recursive=True) if glob.has_magic(source) else ():  # noqa: PTH207
        if not Path(path).is_dir():
            is_empty = False
            yield _found(path)
    if is_empty:
        raise ValueError(f"Expected a folder, a file, a pattern that matches, or -. Received: {source!r}")


def _folder(folder: str) -> Iterator[Found]:
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.name.lower().endswith(SUFFIXES) and not entry.is_dir():
                        yield _found(entry.path)
        except OSError:
            yield Found(current, "")


def _found(path: str) -> Found:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return Found(path, "")
    return Found(path, f"{status.st_size}:{status.st_mtime_ns}")
