"""Fit one recipe once per fold, so that every tile is scored by weights that never saw its cluster.

    RUN/experiment.json    the recipe
    RUN/folds.json         which clusters each fold tests, with the folds' digests
    RUN/fold-1 ... fold-5  a run each, with its test tiles' logits and features in outputs.npz
    RUN/release            the same recipe fitted on all clusters: it has no test tiles
    RUN/leaky              the same recipe on a split by image, for comparison: see training/leaky.py

The schedule is fixed and nothing is chosen on held-out clusters: a fold trains on all that it does not test.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import keras

from training.dataset import Images, Tile, digest_of_tiles, load_images, read_tiles
from training.errors import TrainingError
from training.experiment import Experiment
from training.outputs import OUTPUTS_NAME, Outputs, read_outputs, write_outputs
from training.run_folder import (
    FOLDS_NAME,
    SPLIT_NAME,
    Run,
    keep,
    keep_experiment,
    read_run_experiment,
    start_run,
)
from training.splits import Split, digest_of_split, everything_trains, folds_by_cluster
from training.train import HISTORY_NAME, NETWORK_NAME, Trainer

RELEASE_NAME: Final = "release"


@dataclass(frozen=True)
class CrossValidation:
    """The folds of one recipe, with their data in memory."""

    folder: Path
    experiment: Experiment
    tiles: tuple[Tile, ...]
    images: Images
    splits: tuple[Split, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """Return each fold's digest: which file, by content, it trains on and tests."""
        return tuple(digest_of_split(self.tiles, split) for split in self.splits)

    def open_fold(self, number: int) -> Run:
        """Return the run that tests one fold, counted from 0."""
        plan = self.experiment.split.model_copy(update={"test_fold": number})
        experiment = self.experiment.model_copy(update={"split": plan})
        folder = self.folder / f"fold-{number + 1}"
        return start_run(folder, experiment, self.tiles, self.images, self.splits[number])

    def open_release(self) -> Run:
        """Return the run that trains on all clusters."""
        split = everything_trains(self.tiles)
        return start_run(self.folder / RELEASE_NAME, self.experiment, self.tiles, self.images, split)


def release_folder(run: CrossValidation) -> Path | None:
    """Return the folder of the release, or None where none is trained yet."""
    folder = run.folder / RELEASE_NAME
    return folder if (folder / HISTORY_NAME).is_file() else None


def digest_of_folds(digests: Sequence[str]) -> str:
    """Return one digest of all folds' digests, in their order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def is_cross_validation(folder: Path) -> bool:
    """Tell whether a run folder holds folds and not a single run."""
    return (folder / FOLDS_NAME).is_file()


def open_cross_validation(folder: Path, data: Path, cache: Path, experiment: Experiment) -> CrossValidation:
    """Read the tiles, deal out the folds, and write both down; a second opening must find them equal.

    Raises:
        TrainingError: if the folder belongs to another experiment or other data, or the data is not usable.
        ValueError: if a cluster or a byte-identical file would lie on two sides of a fold.
    """
    if (folder / SPLIT_NAME).is_file():
        raise TrainingError(f"Expected a new folder for the folds. Received a single run: {folder}")
    tiles = read_tiles(data, cache)
    splits = folds_by_cluster(tiles, experiment.split)
    folder.mkdir(parents=True, exist_ok=True)
    keep_experiment(folder, experiment)
    keep(folder / FOLDS_NAME, _describe(tiles, splits))
    images = load_images(data, tiles, experiment.input, cache)
    return CrossValidation(folder, experiment, tiles, images, splits)


def reopen_cross_validation(folder: Path, data: Path, cache: Path) -> CrossValidation:
    """Open folds that were dealt out before, with their own experiment.

    Raises:
        TrainingError: if the folder holds no run, or the data is not that of its start.
    """
    return open_cross_validation(folder, data, cache, read_run_experiment(folder))


def train_folds(folds: CrossValidation, only: Sequence[int] | None = None) -> None:
    """Train every fold that is not finished and write down what it says about its test tiles.

    `only` names the folds to look at, counted from 1: several processes may share a run, each with its own.

    Raises:
        TrainingError: if `only` names a fold that there is not.
    """
    chosen = range(1, len(folds.splits) + 1) if only is None else only
    if unknown := set(chosen) - set(range(1, len(folds.splits) + 1)):
        raise TrainingError(f"Expected folds from 1 to {len(folds.splits)}. Received: {sorted(unknown)}")
    for number in (fold - 1 for fold in chosen):
        run = folds.open_fold(number)
        train_run(run, f"fold {number + 1} of {len(folds.splits)}")
        if not (run.folder / OUTPUTS_NAME).is_file():
            write_outputs(run)


def train_release(folds: CrossValidation) -> None:
    """Fit the recipe on all clusters."""
    train_run(folds.open_release(), "release")


def read_folds(folds: CrossValidation) -> tuple[Outputs, ...]:
    """Return what each fold says about the tiles that it did not train on.

    Raises:
        TrainingError: if a fold is not finished.
    """
    return tuple(read_outputs(folds.open_fold(number)) for number in range(len(folds.splits)))


def train_run(run: Run, name: str) -> None:
    """Fit the weights of one run, from its last finished epoch on, unless they are finished."""
    if (run.folder / NETWORK_NAME).is_file() and (run.folder / HISTORY_NAME).is_file():
        print(f"{name}: finished before")
        return
    keras.backend.clear_session()  # the graphs of the fold before would stay in memory
    trainer = Trainer(run.experiment, run.tiles, run.images, run.split)
    trainer.run(run.folder, resume=True, report=lambda line: print(f"{name}: {line}"))


def _describe(tiles: tuple[Tile, ...], splits: tuple[Split, ...]) -> str:
    folds = [
        {
            "digest": digest_of_split(tiles, split),
            "test_tiles": len(split.test),
            "test_clusters": sorted({tiles[row].cluster for row in split.test}),
        }
        for split in splits
    ]
    return json.dumps({"tiles": digest_of_tiles(tiles), "folds": folds}, indent=1)
