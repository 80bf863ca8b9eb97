"""Score a finished, calibrated run on the clusters that nothing has looked at before."""

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.calibrate import read_calibration, run_logits
from training.checkpoint import write_whole
from training.dataset import labels_of
from training.errors import TrainingError
from training.listing import CLASS_NAMES
from training.metrics import (
    accuracy,
    area_under_curve,
    cluster_interval,
    expected_calibration_error,
    negative_log_likelihood,
    recalls,
)
from training.report import METRICS_NAME
from training.run_folder import Run
from training.splits import leakage_groups
from training.train import fitted_rows
from worker.engine.calibration import calibrate

Figures = dict[str, float | int | str]


def evaluate_run(run: Run) -> Figures:
    """Return the figures of the test clusters that could be measured, and write them into the run's folder.

    Raises:
        TrainingError: if the run is not trained and calibrated.
    """
    calibration = read_calibration(run.folder)
    rows = run.split.test
    labels, groups = labels_of(run.tiles)[rows], leakage_groups(run.tiles)[rows]
    logits = run_logits(run, rows)
    before, after = calibrate(logits, 1.0), calibrate(logits, calibration.temperature)
    figures: Figures = {
        "test_tiles": len(rows),
        "test_clusters": len({run.tiles[row].cluster for row in rows}),
        **score(after, labels, groups),
        "ece_before_temperature": expected_calibration_error(before, labels),
        "ece_after_temperature": expected_calibration_error(after, labels),
        **score_selection(after, labels, calibration.indeterminate_below),
        **_score_other_parts(run),
    }
    rounded = {
        name: round(value, 4)
        for name, value in figures.items()
        if not isinstance(value, str) and math.isfinite(value)
    }
    write_whole(run.folder / METRICS_NAME, json.dumps(rounded, indent=1))
    return {**rounded}


def _score_other_parts(run: Run) -> Figures:
    """Return the accuracy on the other parts that did not move the weights, so that a lucky fold shows."""
    parts = {"validation": run.split.validation, "calibration": run.split.calibration}
    fitted = set(fitted_rows(run.split, run.experiment.train).tolist())
    return {
        f"{name}_accuracy": accuracy(run_logits(run, rows), labels_of(run.tiles)[rows])
        for name, rows in parts.items()
        if fitted.isdisjoint(rows.tolist())
    }


def read_metrics(folder: Path) -> Figures:
    """Return the figures of an evaluated run, without those that could not be measured.

    Such are the figures of classified tiles where no tile is: `evaluate` writes null for them.

    Raises:
        TrainingError: if the run has none yet.
    """
    try:
        body = json.loads((folder / METRICS_NAME).read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"Expected an evaluated run: {error}. Run `evaluate` first.") from error
    return {name: value for name, value in body.get("summary", body).items() if value is not None}


def score(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> Figures:
    """Return accuracy with its interval over clusters, recalls, and what separates the two carcinomas."""
    correct = probabilities.argmax(axis=1) == labels
    low, high = cluster_interval(correct, groups)
    recalled = zip(CLASS_NAMES, recalls(probabilities, labels), strict=True)
    carcinoma = labels > 0
    squamous = probabilities[carcinoma, 2] / np.maximum(probabilities[carcinoma, 1:].sum(axis=1), 1e-12)
    return {
        "test_accuracy": accuracy(probabilities, labels),
        "test_accuracy_low_95": low,
        "test_accuracy_high_95": high,
        **{f"recall_{name}": value for name, value in recalled},
        "auroc_aca_against_scc": area_under_curve(squamous, labels[carcinoma] == 2),
        "auroc_cancer": area_under_curve(1.0 - probabilities[:, 0], carcinoma),
        "negative_log_likelihood": negative_log_likelihood(probabilities, labels),
        "clusters_with_an_error": len(set(groups[~correct].tolist())),
    }


def score_selection(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], indeterminate_below: float
) -> Figures:
    """Return how many answers are over the threshold, and how many of those are right: of none, no number."""
    kept = probabilities.max(axis=1) >= indeterminate_below
    return {
        "coverage_classified": float(kept.mean()),
        "accuracy_classified": accuracy(probabilities[kept], labels[kept]),
    }
