"""Score probabilities against the truth, in NumPy alone."""

import math

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Labels = NDArray[np.int64]


def accuracy(scores: Scores, labels: Labels) -> float:
    """Return the share of rows of `scores` (n, classes) whose largest entry is at the label.

    Of no rows at all it is not a number: a run without a validation part has no figure, not a bad one.
    """
    if not len(labels):
        return math.nan
    return float((scores.argmax(axis=1) == labels).mean())


def recalls(scores: Scores, labels: Labels) -> list[float]:
    """Return, class by class, the share of its tiles that were recognised."""
    predicted = scores.argmax(axis=1)
    return [float((predicted[labels == index] == index).mean()) for index in range(scores.shape[1])]


def confusion(scores: Scores, labels: Labels) -> NDArray[np.int64]:
    """Return counts, truth by row and prediction by column."""
    table = np.zeros((scores.shape[1], scores.shape[1]), np.int64)
    np.add.at(table, (labels, scores.argmax(axis=1)), 1)
    return table


def negative_log_likelihood(probabilities: Scores, labels: Labels) -> float:
    """Return the mean surprise at the truth, in nats."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def expected_calibration_error(probabilities: Scores, labels: Labels, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins of confidence."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(index, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def area_under_curve(scores: Scores, positive: NDArray[np.bool_]) -> float:
    """Return the chance that a positive scores over a negative one (AUROC); ties count half.

    Raises:
        ValueError: if one of the two kinds is missing.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        raise ValueError(f"Expected both kinds. Received: {positives} positive, {negatives} negative")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def cluster_interval(
    correct: NDArray[np.bool_], clusters: NDArray[np.int64], draws: int = 2000, seed: int = 1
) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, by drawing whole clusters with replacement.

    Copies of one source tile are not independent, so tiles must not be drawn one by one. One cluster alone
    has no interval: both ends are no numbers.
    """
    _, index = np.unique(clusters, return_inverse=True)
    right = np.bincount(index, weights=correct)
    size = np.bincount(index)
    if len(size) == 1:
        return math.nan, math.nan
    picks = np.random.default_rng(seed).integers(0, len(size), (draws, len(size)))
    shares = right[picks].sum(axis=1) / size[picks].sum(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)
