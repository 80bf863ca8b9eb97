"""Results as files: complete or not there, and each says that it is not for diagnostic use."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ._models import NOTICE

Rows = Iterable[tuple[str, Mapping[str, Any]]]
#: Each call begins anew: a writer may go through the rows more than once, and keeps none.
RowSource = Callable[[], Rows]
_FIRST = ("file", "status", "class", "label", "confidence", "cancer_probability", "verdict", "reasons")
_LAST = (
    "width",
    "height",
    "input_sha256",
    "model",
    "model_version",
    "job_id",
    "attempt",
    "created_at",
    "finished_at",
    "error_code",
    "error_detail",
    "notice",
)
#: A spreadsheet runs a cell that begins like this as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file that takes its name only when everything is in it and on the disk."""
    # A link is to lead to it still.
    path = path.resolve()
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp lets nobody else read; a result is an ordinary file.
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_ndjson(file: TextIO, rows: RowSource) -> None:
    """Write one JSON object a line."""
    for path, row in rows():
        file.write(json.dumps({"file": printable(path), **row, "notice": NOTICE}, ensure_ascii=False) + "\n")


def write_csv(file: TextIO, rows: RowSource) -> None:
    """Write a table with a column for each class and each check that occurs."""
    classes, checks = set[str](), dict[str, None]()
    for _, row in rows():
        result = _part(row, "result")
        classes.update(_part(result, "probabilities"))
        checks.update(dict.fromkeys(_part(result, "quality")))
    columns = [*_FIRST, *(f"probability_{name}" for name in sorted(classes)), *checks, *_LAST]
    writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    for path, row in rows():
        writer.writerow({name: _cell(value) for name, value in flat(path, row).items()})


def flat(path: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values by column; None where there is no value."""
    result, error, model, image = (_part(row, name) for name in ("result", "error", "model", "input"))
    return {
        **{
            name: result.get(name)
            for name in ("class", "label", "confidence", "cancer_probability", "verdict")
        },
        **_part(result, "quality"),
        **{f"probability_{name}": value for name, value in _part(result, "probabilities").items()},
        **{name: row.get(name) for name in ("status", "job_id", "attempt", "created_at", "finished_at")},
        "file": printable(path),
        "reasons": ";".join(result.get("reasons") or ()),
        "width": image.get("width"),
        "height": image.get("height"),
        "input_sha256": image.get("sha256"),
        "model": model.get("name"),
        "model_version": model.get("version"),
        "error_code": error.get("code"),
        "error_detail": error.get("detail"),
        "notice": NOTICE,
    }


def printable(path: str) -> str:
    """Return a path as text; bytes of a name that are no text are shown as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _part(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = row.get(name)
    return found if isinstance(found, dict) else {}


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
