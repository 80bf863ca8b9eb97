"""Fit temperature and thresholds on out-of-fold answers, each fold's own on the other folds alone.

A fold's figures must not know its own labels, so its probabilities use what the other folds' answers say. The
release has no clusters left to fit on: it gets what all out-of-fold answers together say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.manifest import FeatureStatistics, Gates
from training.calibrate import (
    Calibration,
    Labels,
    build_gates,
    fit_colours,
    fit_temperature,
    indeterminate_threshold,
    write_calibration,
)
from training.cross_validation import CrossValidation, read_folds, release_folder
from training.dataset import labels_of
from training.familiarity import fit_run, keep_familiarity, with_distance
from training.metrics import expected_calibration_error, negative_log_likelihood
from training.outputs import Outputs
from worker.engine.calibration import calibrate
from worker.engine.familiarity import Familiarity
from worker.engine.quality import domain_distance


@dataclass(frozen=True)
class OutOfFold:
    """Every tile's answer by the fold that did not train on it; row by row in the order of `rows`."""

    #: Row numbers into the tiles, fold by fold.
    rows: NDArray[np.int64]
    #: Which fold tested the row, from 0.
    folds: NDArray[np.int64]
    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    labels: Labels
    #: Fitted for each fold on the other folds.
    temperatures: tuple[float, ...]
    indeterminate_below: tuple[float, ...]

    @property
    def uncalibrated(self) -> NDArray[np.float64]:
        """Return the probabilities before temperature."""
        return calibrate(self.logits, 1.0)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Return the probabilities, each row by its own fold's temperature."""
        return _by_fold(self.logits, self.folds, self.temperatures)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """Return, row by row, the confidence under which the verdict is `indeterminate`."""
        return np.array(self.indeterminate_below)[self.folds]


def calibrate_folds(run: CrossValidation) -> Calibration:
    """Fit what the release is served with, and write it into the folder of the folds.

    Its errors before and after are those of the folds' own temperatures, so they are honest ones.

    Raises:
        TrainingError: if a fold is not finished.
    """
    outputs = read_folds(run)
    held_out = gather(outputs, labels_of(run.tiles))
    before, after = held_out.uncalibrated, held_out.probabilities
    calibration = Calibration(
        temperature=round(fit_temperature(held_out.logits, held_out.labels), 4),
        indeterminate_below=indeterminate_threshold(after, held_out.labels),
        gates=_fit_gates(run, _fit_features(run, outputs)),
        ece_before=expected_calibration_error(before, held_out.labels),
        ece_after=expected_calibration_error(after, held_out.labels),
        nll_before=negative_log_likelihood(before, held_out.labels),
        nll_after=negative_log_likelihood(after, held_out.labels),
    )
    write_calibration(run.folder, calibration)
    return calibration


def gather(outputs: Sequence[Outputs], labels: Labels) -> OutOfFold:
    """Put the folds' answers together, each with the temperature and threshold of the other folds.

    Raises:
        ValueError: if there is one fold alone: it has no others.
    """
    if len(outputs) < 2:
        raise ValueError(f"Expected at least two folds. Received: {len(outputs)}")
    rows = np.concatenate([part.rows for part in outputs])
    folds = np.repeat(np.arange(len(outputs)), [len(part.rows) for part in outputs])
    logits, truth = np.concatenate([part.logits for part in outputs]), labels[rows]
    temperatures = tuple(
        round(fit_temperature(logits[folds != fold], truth[folds != fold]), 4) for fold in range(len(outputs))
    )
    return OutOfFold(
        rows=rows,
        folds=folds,
        logits=logits,
        features=np.concatenate([part.features for part in outputs]),
        labels=truth,
        temperatures=temperatures,
        indeterminate_below=tuple(
            # By this fold's temperature: the others' were fitted on its labels, too.
            indeterminate_threshold(calibrate(logits[folds != fold], temperature), truth[folds != fold])
            for fold, temperature in enumerate(temperatures)
        ),
    )


def _by_fold(
    logits: NDArray[np.float32], folds: NDArray[np.int64], temperatures: Sequence[float]
) -> NDArray[np.float64]:
    scale = np.array(temperatures)[folds][:, np.newaxis]
    return calibrate(logits / scale, 1.0)


def _fit_features(run: CrossValidation, outputs: Sequence[Outputs]) -> FeatureStatistics | None:
    """Fit each fold's features and the release's, with the distance that 1 in 100 tiles exceeds out of fold.

    Every network has features of its own, but their distances are in units of their own spread. None where no
    release is trained: then there is nothing to serve.
    """
    folds = [run.open_fold(number) for number in range(len(run.splits))]
    fitted = [fit_run(fold) for fold in folds]
    unseen = np.concatenate(
        [
            Familiarity(statistics).distances(part.features)
            for statistics, part in zip(fitted, outputs, strict=True)
        ]
    )
    for fold, statistics in zip(folds, fitted, strict=True):
        keep_familiarity(fold, with_distance(statistics, unseen))
    return with_distance(fit_run(run.open_release()), unseen) if release_folder(run) else None


def _fit_gates(run: CrossValidation, features: FeatureStatistics | None) -> Gates:
    """Return the gates: the colours of all tiles, and a distance that 1 in 100 tiles exceeds out of fold."""
    labels, numbers = labels_of(run.tiles), run.images.measured[:, :6]
    distances: list[float] = []
    for split in run.splits:
        colour = fit_colours(numbers[split.train], labels[split.train])
        distances.extend(domain_distance(row, colour) for row in numbers[split.test])
    return build_gates(fit_colours(numbers, labels), distances, features)
