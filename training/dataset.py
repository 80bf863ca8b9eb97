"""Find the labelled tiles, prove that they are what they claim to be, and read them as the worker would."""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import HistoQueueError
from shared.manifest import InputSpec
from training.errors import TrainingError
from worker.engine.decode import decode
from worker.engine.preprocess import preprocess
from worker.engine.quality import colour_numbers, resize_for_measuring, sharpness

#: Order of the model's outputs: the one place where it is decided.
CLASS_NAMES: Final = ("lung_n", "lung_aca", "lung_scc")
CLUSTERS_NAME: Final = "clusters.csv"
_MAX_PIXELS: Final = 4096 * 4096


@dataclass(frozen=True)
class Tile:
    """One labelled file."""

    #: Relative to the data folder, with forward slashes.
    path: str
    class_name: str
    #: The source tile that it was made from: tiles of one cluster are copies of each other.
    cluster: str
    sha256: str


@dataclass(frozen=True)
class Images:
    """What training needs of the pixels, row by row in the order of the tiles."""

    #: Model inputs, uint8 of shape (tiles, height, width, 3).
    inputs: NDArray[np.uint8]
    #: Six colour numbers and the sharpness, measured as the gates do: shape (tiles, 7).
    measured: NDArray[np.float64]


def read_tiles(folder: Path) -> tuple[Tile, ...]:
    """Return every tile that `clusters.csv` in `folder` lists, sorted by path, with its file's digest.

    Raises:
        TrainingError: if the list or a file is missing, a class is unknown or has no tile, or a cluster
            straddles classes.
    """
    rows = _read_rows(folder / CLUSTERS_NAME)
    _check_classes(rows)
    _check_clusters(rows)
    return tuple(
        Tile(path, class_name, cluster, _digest(folder / path)) for path, class_name, cluster in sorted(rows)
    )


def digest_of_tiles(tiles: Sequence[Tile]) -> str:
    """Return one digest of every path, class, cluster and content."""
    lines = [f"{tile.path},{tile.class_name},{tile.cluster},{tile.sha256}" for tile in tiles]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def labels_of(tiles: Sequence[Tile]) -> NDArray[np.int64]:
    """Return the index of each tile's class: shape (tiles,)."""
    return np.array([CLASS_NAMES.index(tile.class_name) for tile in tiles], dtype=np.int64)


def load_images(
    folder: Path,
    tiles: Sequence[Tile],
    spec: InputSpec,
    cache: Path,
    report: Callable[[str], None] = print,
) -> Images:
    """Return the tiles as model inputs, from `cache` where they were decoded before.

    The cache's name holds a digest of tiles and input spec, so a changed file is decoded again.

    Raises:
        TrainingError: naming the first file that cannot be decoded.
    """
    key = hashlib.sha256((digest_of_tiles(tiles) + spec.model_dump_json()).encode()).hexdigest()[:16]
    path = cache / f"tiles-{key}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            return Images(stored["inputs"], stored["measured"])
    images = _decode_all(folder, tiles, spec, report)
    _write(path, images)
    return images


def _read_rows(path: Path) -> list[tuple[str, str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            return [(row["path"], row["class"], row["cluster"]) for row in csv.DictReader(lines)]
    except (OSError, KeyError) as error:
        raise TrainingError(
            f"Expected {path} with the columns path, class and cluster. Received: {error!r}"
        ) from error


def _check_classes(rows: Sequence[tuple[str, str, str]]) -> None:
    counts = Counter(class_name for _, class_name, _ in rows)
    if set(counts) != set(CLASS_NAMES):
        raise TrainingError(f"Expected tiles of exactly {', '.join(CLASS_NAMES)}. Received: {dict(counts)}")


def _check_clusters(rows: Sequence[tuple[str, str, str]]) -> None:
    classes = defaultdict(set)
    for _, class_name, cluster in rows:
        classes[cluster].add(class_name)
    for cluster, names in sorted(classes.items()):
        if len(names) > 1:
            raise TrainingError(f"Expected one class in cluster {cluster}. Received: {sorted(names)}")


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TrainingError(f"Expected every listed file to be readable. Received: {error}") from error


def _decode_all(
    folder: Path, tiles: Sequence[Tile], spec: InputSpec, report: Callable[[str], None]
) -> Images:
    inputs = np.empty((len(tiles), spec.height, spec.width, 3), np.uint8)
    measured = np.empty((len(tiles), 7), np.float64)
    for index, tile in enumerate(tiles):
        image = _decode(folder, tile)
        view = resize_for_measuring(image)
        inputs[index] = preprocess(image, spec)
        measured[index] = [*colour_numbers(view), sharpness(view)]
        if (index + 1) % 2000 == 0:
            report(f"decoded {index + 1} of {len(tiles)} tiles")
    return Images(inputs, measured)


def _decode(folder: Path, tile: Tile) -> NDArray[np.uint8]:
    try:
        return decode((folder / tile.path).read_bytes(), _MAX_PIXELS)
    except HistoQueueError as error:
        raise TrainingError(f"Expected a readable image at {tile.path}. Received: {error}") from error


def _write(path: Path, images: Images) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npz")
    np.savez(unfinished, inputs=images.inputs, measured=images.measured)
    unfinished.replace(path)  # a full disk or Ctrl-C must not leave half a cache
