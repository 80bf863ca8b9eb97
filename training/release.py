"""Gather what a finished run publishes: weights, calibration, figures, and what they were made from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.manifest import InputSpec
from training.calibrate import Calibration, read_calibration
from training.cross_validation import CrossValidation, digest_of_folds, release_folder
from training.dataset import Tile, digest_of_tiles
from training.errors import TrainingError
from training.evaluate import Figures, read_metrics
from training.experiment import Experiment
from training.report import METRICS_NAME
from training.run_folder import Run
from training.terms import describe_dataset, notice_of
from training.train import NETWORK_NAME, fitted_rows, read_history, read_software


@dataclass(frozen=True)
class Release:
    """Weights with everything that is said of them, ready to become a version."""

    #: The Keras archive.
    network: Path
    input: InputSpec
    calibration: Calibration
    #: Flat figures for the manifest.
    metrics: Figures
    training: Figures
    #: What is said of the tiles that trained it.
    notice: str
    #: The folder with the card and its plots, or None where only a single run was scored.
    report: Path | None


def release_of_run(run: Run, data: Path) -> Release:
    """Return what a single evaluated run on the tiles of `data` publishes.

    Raises:
        TrainingError: if the run is not trained, calibrated and evaluated, or what the folder says of its
            tiles cannot be read.
    """
    metrics = read_metrics(run.folder)  # first: of all that may be missing, it is the last step
    return Release(
        network=run.folder / NETWORK_NAME,
        input=run.experiment.input,
        calibration=read_calibration(run.folder),
        metrics=metrics,
        training=_history(run),
        notice=notice_of(digest_of_tiles(run.tiles), data),
        report=None,
    )


def release_of_folds(folds: CrossValidation, data: Path) -> Release:
    """Return what an evaluated cross-validation on `data` publishes: the weights that all clusters trained.

    Raises:
        TrainingError: if the release is not trained, the folds are not calibrated and evaluated, or what the
            folder says of its tiles cannot be read.
    """
    folder = release_folder(folds)
    if folder is None:
        raise TrainingError(f"Expected a release in {folds.folder}. Run `train --release` on it first.")
    calibration = read_calibration(folds.folder)
    if calibration.gates.features is None:
        raise TrainingError(
            f"Expected {folds.folder} to be calibrated with its release. Run `calibrate` again."
        )
    history = read_history(folder)
    return Release(
        network=folder / NETWORK_NAME,
        input=folds.experiment.input,
        calibration=calibration,
        metrics=_figures(folds.folder, calibration),
        training={
            **_data_facts(folds.tiles, folds.experiment),
            "folds_sha256": digest_of_folds(folds.digests),
            "train_clusters": len({tile.cluster for tile in folds.tiles}),
            "epochs": len(history),
            "seconds": round(sum(record["seconds"] for record in history)),
            "software": read_software(folder),
        },
        notice=notice_of(digest_of_tiles(folds.tiles), data),
        report=folds.folder,
    )


def _figures(folder: Path, calibration: Calibration) -> Figures:
    """Return the figures for the manifest, if they are this calibration's and were made with this release."""
    metrics = read_metrics(folder)  # first: it says what to run where there are none
    body = json.loads((folder / METRICS_NAME).read_text(encoding="utf-8"))
    above = calibration.gates.features.distance if calibration.gates.features else None
    if (body.get("kind"), body.get("unfamiliar_above")) != ("cross-validation", above):
        raise TrainingError(
            f"Expected figures of {folder} that were made with its release. Received others: run `evaluate`"
            " again."
        )
    return metrics


def _history(run: Run) -> Figures:
    history = read_history(run.folder)
    fitted = fitted_rows(run.split, run.experiment.train)
    return {
        **_data_facts(run.tiles, run.experiment),
        "split_sha256": run.split_digest,
        "test_fold": f"{run.experiment.split.test_fold + 1} of {run.experiment.split.test_folds}",
        "train_clusters": len({run.tiles[row].cluster for row in fitted}),
        "epochs": len(history),
        "seconds": round(sum(record["seconds"] for record in history)),
        "software": read_software(run.folder),
    }


def _data_facts(tiles: Sequence[Tile], experiment: Experiment) -> Figures:
    digest = digest_of_tiles(tiles)
    return {
        "dataset": describe_dataset(digest),
        "dataset_sha256": digest,
        "split_seed": experiment.split.seed,
        "seed": experiment.train.seed,
    }
