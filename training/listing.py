"""Find the labelled files of a data folder: by its `clusters.csv`, or by its class folders.

lung_n/ lung_aca/ lung_scc/                          as here
lung_image_sets/lung_n/ ...                          as LC25000 is published
lung_colon_image_set/lung_image_sets/lung_n/ ...     with the folder that its archive adds
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.errors import TrainingError

#: Order of the model's outputs: the one place where it is decided.
CLASS_NAMES: Final = ("lung_n", "lung_aca", "lung_scc")
CLUSTERS_NAME: Final = "clusters.csv"
_COLUMNS: Final = ("path", "class", "cluster")
_LAYOUTS: Final = ("", "lung_image_sets", "lung_colon_image_set/lung_image_sets")
_SUFFIXES: Final = frozenset({".jpeg", ".jpg", ".png", ".tif", ".tiff"})
#: A class with so many times fewer tiles than the largest is no longer learnt beside it.
MAX_IMBALANCE: Final = 10.0
#: From here on it is worth a warning.
NOTABLE_IMBALANCE: Final = 2.0


@dataclass(frozen=True)
class Listed:
    """One labelled file, not yet opened."""

    #: Relative to the data folder, with forward slashes.
    path: str
    class_name: str
    #: None where no list says which tiles are copies of each other.
    cluster: str | None


def list_files(folder: Path, to_train: bool = True) -> tuple[Listed, ...]:
    """Return every labelled file of a folder, sorted by path.

    Where they are `to_train` on, no class may be far smaller than another.

    Raises:
        TrainingError: if there is none, a class is missing, unknown or far too small, or a cluster straddles
            classes.
    """
    path = folder / CLUSTERS_NAME
    files = read_list(path) if path.is_file() else _find(folder)
    check_classes(folder, files)
    _check_clusters(files)
    if to_train:
        _check_sizes(files)
    return tuple(sorted(files, key=lambda file: file.path))


def check_classes(folder: Path, files: Sequence[Listed]) -> None:
    """Check that there are files of every class and of no other.

    Raises:
        TrainingError: naming what is missing or unknown.
    """
    counts = Counter(file.class_name for file in files)
    if not counts:
        raise TrainingError(f"Expected images in {folder}. Received a folder without any.")
    if set(counts) != set(CLASS_NAMES):
        raise TrainingError(f"Expected tiles of exactly {', '.join(CLASS_NAMES)}. Received: {dict(counts)}")


def read_list(path: Path, column: str = "cluster") -> list[Listed]:
    """Return the files that a list with the columns path, class and the named one describes.

    Raises:
        TrainingError: if it cannot be read, lacks a column, or leaves one empty.
    """
    try:
        # A spreadsheet begins its UTF-8 with a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as lines:
            files = [Listed(row["path"], row["class"], row[column]) for row in csv.DictReader(lines)]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(
            f"Expected {path} with the columns path, class and {column}. Received: {error!r}"
        ) from error
    for number, file in enumerate(files, start=1):
        # All that have none would be taken for copies, or tiles of one patient.
        if not file.path or not (file.cluster or "").strip():
            raise TrainingError(
                f"Expected a path and a {column} in each row of {path}. Received: row {number}, {file.path}"
            )
    return files


def write_list(path: Path, files: Sequence[Listed]) -> None:
    """Write files with their clusters, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((file.path, file.class_name, file.cluster) for file in files)
    unfinished.replace(path)


def imbalance(class_names: Sequence[str]) -> float:
    """Return how many times more files the largest class has than the smallest."""
    counts = Counter(class_names).values()
    return max(counts) / min(counts)


def _find(folder: Path) -> list[Listed]:
    for layout in _LAYOUTS:
        root = folder / layout
        if any((root / name).is_dir() for name in CLASS_NAMES):
            return [
                Listed(_name(path, folder), name, None)
                for name in CLASS_NAMES
                for path in (root / name).rglob("*")
                if _is_tile(path, root)
            ]
    raise TrainingError(
        f"Expected {CLUSTERS_NAME} or the class folders {', '.join(CLASS_NAMES)} in {folder}."
        f" Received: {_contents(folder)}"
    )


def _is_tile(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in _SUFFIXES and not hidden and path.is_file()  # folders may be called x.tif


def _name(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise TrainingError(f"Expected names of files in UTF-8. Received: {name!a}") from error
    return name


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    return f"{', '.join(names[:6])}{' ...' if len(names) > 6 else ''}" if names else "an empty folder"


def _check_sizes(files: Sequence[Listed]) -> None:
    names = [file.class_name for file in files]
    if imbalance(names) > MAX_IMBALANCE:
        raise TrainingError(
            f"Expected classes of similar size, at most {MAX_IMBALANCE:.0f} to 1."
            f" Received: {dict(Counter(names))}"
        )


def _check_clusters(files: Sequence[Listed]) -> None:
    classes = defaultdict(set)
    for file in files:
        if file.cluster is not None:
            classes[file.cluster].add(file.class_name)
    for cluster, names in sorted(classes.items()):
        if len(names) > 1:
            raise TrainingError(f"Expected one class in cluster {cluster}. Received: {sorted(names)}")
