"""Fit what turns logits into an honest verdict, on clusters that the weights never saw."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from shared.manifest import ColourStatistics, FeatureStatistics, Gates
from training.checkpoint import write_whole
from training.dataset import labels_of
from training.errors import TrainingError
from training.familiarity import fit_run, keep_familiarity, with_distance
from training.inference import build_forward, build_outputs
from training.listing import CLASS_NAMES
from training.metrics import expected_calibration_error, negative_log_likelihood
from training.outputs import finished_network
from training.run_folder import Run
from worker.engine.calibration import calibrate
from worker.engine.familiarity import Familiarity
from worker.engine.quality import domain_distance

CALIBRATION_NAME: Final = "calibration.json"
#: Accuracy that the answers over the `indeterminate` threshold shall have.
SELECTIVE_ACCURACY: Final = 0.99
#: Never call an answer `classified` under this: half the probability lies elsewhere then.
LOWEST_THRESHOLD: Final = 0.5
#: Micrometres per pixel of the training tiles at 224 pixels: not stated by LC25000, inferred.
TRAINED_MPP: Final = (0.35, 0.6)
#: Added to each variance (squared grey levels), so that a class of very alike tiles stays invertible.
_RIDGE: Final = 1.0

Labels = NDArray[np.int64]


class Calibration(BaseModel):
    """What was fitted, with how well it did on the clusters that it was fitted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float
    indeterminate_below: float
    gates: Gates
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float


def calibrate_run(run: Run) -> Calibration:
    """Fit temperature and thresholds for a finished run, and write them into its folder.

    Raises:
        TrainingError: if training has not finished.
    """
    rows = run.split.calibration
    logits, labels = run_logits(run, rows), labels_of(run.tiles)[rows]
    temperature = round(fit_temperature(logits, labels), 4)
    before, after = calibrate(logits, 1.0), calibrate(logits, temperature)
    calibration = Calibration(
        temperature=temperature,
        indeterminate_below=indeterminate_threshold(after, labels),
        gates=fit_gates(run),
        ece_before=expected_calibration_error(before, labels),
        ece_after=expected_calibration_error(after, labels),
        nll_before=negative_log_likelihood(before, labels),
        nll_after=negative_log_likelihood(after, labels),
    )
    write_calibration(run.folder, calibration)
    return calibration


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write a run's calibration into its folder; one that was there stays where there is no room."""
    write_whole(folder / CALIBRATION_NAME, calibration.model_dump_json(indent=1))


def read_calibration(folder: Path) -> Calibration:
    """Return a run's calibration.

    Raises:
        TrainingError: if the run has none yet.
    """
    try:
        text = (folder / CALIBRATION_NAME).read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"Expected a calibrated run: {error}. Run `calibrate` first.") from error
    return Calibration.model_validate_json(text)


def run_logits(run: Run, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the finished network's logits, shape (rows, classes).

    Raises:
        TrainingError: if training has not finished.
    """
    return build_forward(finished_network(run))(run.images.inputs[rows])


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> float:
    """Return the temperature between 0.1 and 10 with the smallest negative log likelihood, to half a percent.

    A grid and not a search: the loss has one minimum, and a thousand trials take less than a second.
    """
    candidates = np.geomspace(0.1, 10.0, 925)
    losses = [negative_log_likelihood(calibrate(logits, float(value)), labels) for value in candidates]
    return float(candidates[int(np.argmin(losses))])


def indeterminate_threshold(probabilities: NDArray[np.float64], labels: Labels) -> float:
    """Return the lowest confidence, in whole percent, from which answers are right often enough.

    Where none reaches that, the result is the highest confidence seen, rounded up to a percent.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    for percent in range(round(LOWEST_THRESHOLD * 100), 101):
        given = confidence >= percent / 100
        if given.any() and correct[given].mean() >= SELECTIVE_ACCURACY:
            return percent / 100
    return max(LOWEST_THRESHOLD, min(1.0, float(np.ceil(confidence.max() * 100) / 100)))


def fit_gates(run: Run) -> Gates:
    """Return the gates: what training tiles look like, and how far 1 in 100 held-out ones are from that."""
    labels, numbers = labels_of(run.tiles), run.images.measured[:, :6]
    train, held_out = run.split.train, run.split.calibration
    colour = fit_colours(numbers[train], labels[train])
    return build_gates(
        colour, [domain_distance(row, colour) for row in numbers[held_out]], _fit_features(run)
    )


def _fit_features(run: Run) -> FeatureStatistics:
    statistics = fit_run(run)
    _, features = build_outputs(finished_network(run))(run.images.inputs[run.split.calibration])
    fitted = with_distance(statistics, Familiarity(statistics).distances(features))
    keep_familiarity(run, fitted)
    return fitted


def build_gates(
    colour: tuple[ColourStatistics, ...], distances: Sequence[float], features: FeatureStatistics | None
) -> Gates:
    """Return the gates for these colours and features, and the distances of held-out tiles to the colours.

    Background and sharpness keep the thresholds that were measured on LC25000 and on foreign slides.
    """
    return Gates(
        background_level=220,
        background_reject=0.5,
        background_warn=0.25,
        sharpness_low=60.0,
        sharpness_high=1000.0,
        domain_distance=round(float(np.quantile(distances, 0.99)), 1),
        colour=colour,
        features=features,
        mpp=TRAINED_MPP,
    )


def fit_colours(numbers: NDArray[np.float64], labels: Labels) -> tuple[ColourStatistics, ...]:
    """Return each class's colour statistics from the colour numbers of its tiles."""
    return tuple(fit_colour(name, numbers[labels == index]) for index, name in enumerate(CLASS_NAMES))


def fit_colour(name: str, numbers: NDArray[np.float64]) -> ColourStatistics:
    """Return mean and inverse covariance of one class's colour numbers, shape (tiles, 6)."""
    covariance = np.cov(numbers, rowvar=False) + _RIDGE * np.eye(6)
    inverse = np.linalg.inv(covariance)
    return ColourStatistics(
        class_name=name,
        mean=tuple(round(float(value), 4) for value in numbers.mean(axis=0)),
        inverse_covariance=tuple(tuple(round(float(value), 8) for value in row) for row in inverse),
    )
