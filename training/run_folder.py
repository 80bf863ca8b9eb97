"""Open the folder of one run: its experiment, its tiles and the split that every later step must share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from training.checkpoint import write_whole
from training.dataset import Images, Tile, digest_of_tiles, load_images, read_tiles
from training.errors import TrainingError
from training.experiment import Experiment
from training.splits import Split, digest_of_split, split_by_cluster

EXPERIMENT_NAME: Final = "experiment.json"
SPLIT_NAME: Final = "split.json"
#: Lies in the folder of a cross-validation, whose folds are runs.
FOLDS_NAME: Final = "folds.json"


@dataclass(frozen=True)
class Run:
    """One run with its data in memory."""

    folder: Path
    experiment: Experiment
    tiles: tuple[Tile, ...]
    images: Images
    split: Split
    split_digest: str


def open_run(folder: Path, data: Path, cache: Path, experiment: Experiment) -> Run:
    """Read tiles and split for an experiment, and write both down; a second opening must find them equal.

    Raises:
        TrainingError: if the folder belongs to another experiment or other data, or the data is not usable.
    """
    tiles = read_tiles(data, cache)
    split = split_by_cluster(tiles, experiment.split)
    digest = _claim(folder, experiment, tiles, split)
    images = load_images(data, tiles, experiment.input, cache)
    return Run(folder, experiment, tiles, images, split, digest)


def reopen_run(folder: Path, data: Path, cache: Path) -> Run:
    """Open a run that was started before, with its own experiment.

    Raises:
        TrainingError: if the folder holds no run, or the data is not that of its start.
    """
    return open_run(folder, data, cache, read_run_experiment(folder))


def start_run(
    folder: Path, experiment: Experiment, tiles: tuple[Tile, ...], images: Images, split: Split
) -> Run:
    """Write experiment and split into the folder of a run whose data is in memory, or find them equal there.

    Raises:
        TrainingError: if the folder belongs to another experiment or other data.
    """
    return Run(folder, experiment, tiles, images, split, _claim(folder, experiment, tiles, split))


def read_run_experiment(folder: Path) -> Experiment:
    """Return the experiment of a run that was started before.

    Raises:
        TrainingError: if the folder holds no run, or one whose experiment cannot be read.
    """
    try:
        return Experiment.model_validate_json((folder / EXPERIMENT_NAME).read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingError(f"Expected a run folder. Received: {folder}: {error}") from error


def keep_experiment(folder: Path, experiment: Experiment) -> None:
    """Write the experiment down, or find an equal one there.

    Raises:
        TrainingError: if the folder belongs to another experiment.
    """
    path = folder / EXPERIMENT_NAME
    if path.is_file() and read_run_experiment(folder) == experiment:
        return  # compared as values: an older file lacks the settings that were added since
    keep(path, experiment.model_dump_json(indent=1))


def keep(path: Path, text: str) -> None:
    """Write a file that never changes, or find it unchanged.

    Raises:
        TrainingError: if it is there with another text, or cannot be written.
    """
    if not path.is_file():
        write_whole(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise TrainingError(f"Expected a new run folder: {path} was written by another experiment or data.")


def _claim(folder: Path, experiment: Experiment, tiles: tuple[Tile, ...], split: Split) -> str:
    """Write experiment and split down before the hour that may follow, and return the split's digest."""
    if (folder / FOLDS_NAME).is_file():
        raise TrainingError(f"Expected the folder of a single run. Received folds in {folder}: use --folds.")
    digest = digest_of_split(tiles, split)
    folder.mkdir(parents=True, exist_ok=True)
    keep_experiment(folder, experiment)
    keep(folder / SPLIT_NAME, _describe(tiles, split, digest))
    return digest


def _describe(tiles: tuple[Tile, ...], split: Split, digest: str) -> str:
    clusters = {
        name: sorted({tiles[index].cluster for index in rows}) for name, rows in split.parts().items()
    }
    counts = {name: len(rows) for name, rows in split.parts().items()}
    body = {"digest": digest, "tiles": digest_of_tiles(tiles), "counts": counts, "clusters": clusters}
    return json.dumps(body, indent=1)
