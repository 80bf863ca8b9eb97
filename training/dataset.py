"""Find the labelled tiles, prove that they are what they claim to be, and read them as the worker would."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.errors import HistoQueueError
from shared.manifest import InputSpec
from training.errors import TrainingError
from training.listing import CLASS_NAMES, CLUSTERS_NAME, Listed, list_files, read_list
from worker.engine.decode import decode
from worker.engine.preprocess import least_side, preprocess_measured
from worker.engine.quality import colour_numbers, resize_for_measuring, sharpness

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


def read_tiles(folder: Path, cache: Path | None = None) -> tuple[Tile, ...]:
    """Return every labelled tile in `folder`, sorted by path, with its file's digest and its cluster.

    Clusters come from what `prepare` found and kept in `cache`, or from the folder's own list.

    Raises:
        TrainingError: if there is no tile, a file or a class is missing, a class is unknown, a cluster or a
            file's content straddles classes, or nothing says which tiles are copies of each other.
    """
    files = list_files(folder)
    digests = digest_files(folder, files)
    prepared = None if cache is None else prepared_list(cache, files, digests)
    if prepared is not None and prepared.is_file():
        known = dict(zip((file.path for file in files), digests, strict=True))
        files = tuple(read_list(prepared))
        digests = [known[file.path] for file in files]
    return build_tiles(files, digests)


def build_tiles(files: Sequence[Listed], digests: Sequence[str]) -> tuple[Tile, ...]:
    """Return the tiles of files whose clusters are known.

    Raises:
        TrainingError: if one has no cluster, or identical files lie in two classes.
    """
    classes: dict[str, Listed] = {}
    for file, digest in zip(files, digests, strict=True):
        same = classes.setdefault(digest, file)
        if same.class_name != file.class_name:
            raise TrainingError(
                f"Expected one class for one image. Received identical files: {same.path}, {file.path}"
            )
        if file.cluster is None:
            raise TrainingError(
                f"Expected to know which tiles are copies of each other. Received no {CLUSTERS_NAME}:"
                " run `prepare` on this folder first, and it groups them."
            )
    return tuple(
        Tile(file.path, file.class_name, str(file.cluster), digest)
        for file, digest in zip(files, digests, strict=True)
    )


def digest_files(folder: Path, files: Sequence[Listed]) -> list[str]:
    """Return each file's sha256.

    Raises:
        TrainingError: naming the first file that cannot be read.
    """
    return [_digest(folder / file.path) for file in files]


def prepared_list(cache: Path, files: Sequence[Listed], digests: Sequence[str]) -> Path:
    """Return where `prepare` keeps the clusters that it found for exactly these files."""
    lines = [
        f"{file.path},{file.class_name},{file.cluster},{digest}"
        for file, digest in zip(files, digests, strict=True)
    ]
    key = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return cache / f"clusters-{key}.csv"


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

    def decode_one(index: int) -> None:
        picture = Image.fromarray(decode_file(folder, tiles[index].path, spec))
        view = resize_for_measuring(picture)
        inputs[index] = preprocess_measured(picture, view, spec)
        measured[index] = [*colour_numbers(view), sharpness(view)]

    with ThreadPoolExecutor() as threads:
        try:
            for done, _ in enumerate(threads.map(decode_one, range(len(tiles))), start=1):
                if done % 2000 == 0:
                    report(f"decoded {done} of {len(tiles)} tiles")
        except BaseException:
            # A damaged file or Ctrl-C: thousands of others would be decoded first.
            threads.shutdown(cancel_futures=True)
            raise
    return Images(inputs, measured)


def decode_file(folder: Path, path: str, spec: InputSpec | None = None) -> NDArray[np.uint8]:
    """Return one file as the worker would decode it for this input; without one, whole.

    Raises:
        TrainingError: naming the file, if it cannot be decoded.
    """
    try:
        side = least_side(spec) if spec else None
        return decode((folder / path).read_bytes(), _MAX_PIXELS, side)
    except (OSError, HistoQueueError) as error:
        raise TrainingError(f"Expected a readable image at {path}. Received: {error}") from error


def _write(path: Path, images: Images) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may share a run, and find no cache at once.
    unfinished = path.with_suffix(f".{os.getpid()}.part.npz")
    try:
        np.savez(unfinished, inputs=images.inputs, measured=images.measured)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)  # a full disk or Ctrl-C must not leave half a cache
