"""Decode many labelled files one by one; a file that cannot be decoded is named, or left out where asked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.dataset import decode_file
from training.errors import TrainingError
from training.listing import CLASS_NAMES

Report = Callable[[str], None]
Made = TypeVar("Made")


class Labelled(Protocol):
    """A file with its class."""

    @property
    def path(self) -> str:
        """Relative to the data folder."""
        ...

    @property
    def class_name(self) -> str:
        """One of `CLASS_NAMES`."""
        ...


def read_files(
    folder: Path,
    files: Sequence[Labelled],
    make: Callable[[NDArray[np.uint8], str], Made],
    skip_unreadable: bool,
    report: Report = print,
) -> tuple[list[int], list[Made]]:
    """Return the rows of the files that can be decoded, and what `make` makes of each one's pixels and path.

    Raises:
        TrainingError: naming the first file that cannot be decoded, unless those are to be left out; or where
            that leaves a class without a file.
    """
    rows: list[int] = []
    made: list[Made] = []
    for row, file in enumerate(files):
        try:
            image = decode_file(folder, file.path)
        except TrainingError as error:
            if not skip_unreadable:
                raise TrainingError(f"{error} To leave it out: --skip-unreadable") from error
            report(f"left out: {error}")
        else:
            rows.append(row)
            made.append(make(image, file.path))
        if (row + 1) % 2000 == 0:
            report(f"read {row + 1} of {len(files)} files")
    missing = set(CLASS_NAMES) - {files[row].class_name for row in rows}
    if missing:
        raise TrainingError(f"Expected a readable tile of each class. Received none of {sorted(missing)}")
    return rows, made
