"""Learn where training tiles lie in a network's pooled features, and how far from there is unfamiliar."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.manifest import FeatureStatistics
from training.checkpoint import write_whole
from training.dataset import labels_of
from training.errors import TrainingError
from training.inference import Outputter, build_outputs
from training.metrics import Labels
from training.outputs import finished_network
from training.robustness import choose_rows
from training.run_folder import Run
from training.splits import leakage_groups

FAMILIARITY_NAME: Final = "familiarity.json"
#: Directions that are looked along: the strongest ones; there the tiles at hand are enough to know a spread.
DIRECTIONS: Final = 32
#: Copies of each cluster that are looked at: copies carry little information and cost minutes.
_COPIES: Final = 3
#: Share of unseen tiles that the threshold may flag.
_FLAGGED: Final = 0.01
#: Added to each variance, as a share of the mean one, so that a direction without any stays finite.
_RIDGE: Final = 0.01
_DIGITS: Final = 6


def fit_run(run: Run) -> FeatureStatistics:
    """Return the statistics of a finished run's training tiles; the distance is still to be fitted.

    Raises:
        TrainingError: if training has not finished.
    """
    return fit_features(*training_features(run, build_outputs(finished_network(run))))


def training_features(run: Run, outputs: Outputter) -> tuple[NDArray[np.float32], Labels]:
    """Return features and labels of a few copies of each cluster that the run trained on."""
    train = run.split.train
    rows = train[choose_rows(leakage_groups(run.tiles)[train], _COPIES)]
    _, features = outputs(run.images.inputs[rows])
    return features, labels_of(run.tiles)[rows]


def fit_features(features: NDArray[np.float32], labels: Labels) -> FeatureStatistics:
    """Return class means and the common spread about them, along the directions of the largest spread.

    `features` has shape (tiles, features). The distance is 0 until `with_distance`.
    """
    values = features.astype(np.float64)
    means = np.array([values[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = values - means[np.searchsorted(np.unique(labels), labels)]
    _, sizes, directions = np.linalg.svd(within, full_matrices=False)
    variances = sizes**2 / len(values)
    spread = np.sqrt(variances + _RIDGE * variances.sum() / values.shape[1] + 1e-12)
    projection = (directions / spread[:, np.newaxis])[:DIRECTIONS]
    return FeatureStatistics(
        projection=_rounded(projection), centres=_rounded(means @ projection.T), distance=0.0
    )


def with_distance(statistics: FeatureStatistics, unseen: NDArray[np.float64]) -> FeatureStatistics:
    """Return statistics whose threshold 1 in 100 of these distances of unseen tiles exceeds."""
    distance = float(np.quantile(unseen, 1 - _FLAGGED))
    return statistics.model_copy(update={"distance": round(distance, 2)})


def keep_familiarity(run: Run, statistics: FeatureStatistics) -> None:
    """Write a run's statistics into its folder."""
    write_whole(run.folder / FAMILIARITY_NAME, statistics.model_dump_json())


def read_familiarity(run: Run) -> FeatureStatistics:
    """Return a run's statistics.

    Raises:
        TrainingError: if the run was not calibrated since this gate exists.
    """
    try:
        text = (run.folder / FAMILIARITY_NAME).read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"Expected a calibrated run: {error}. Run `calibrate` first.") from error
    return FeatureStatistics.model_validate_json(text)


def _rounded(values: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    """Return rows of numbers with a few significant digits: they travel in a manifest."""
    return tuple(tuple(float(f"{value:.{_DIGITS}g}") for value in row) for row in values)
