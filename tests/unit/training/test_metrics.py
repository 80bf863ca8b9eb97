"""Scores that can be checked by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.metrics import (
    accuracy,
    area_under_curve,
    cluster_interval,
    confusion,
    expected_calibration_error,
    negative_log_likelihood,
    recalls,
)

PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
LABELS = np.array([0, 1, 2, 2])


def test_three_of_four_are_right() -> None:
    """Accuracy, recalls and confusion tell the same story."""
    assert accuracy(PROBABILITIES, LABELS) == 0.75
    assert recalls(PROBABILITIES, LABELS) == [1.0, 1.0, 0.5]
    assert confusion(PROBABILITIES, LABELS).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_the_negative_log_likelihood_looks_at_the_truth_alone() -> None:
    """Mean of the logarithms of 0.8, 0.6, 0.1 and 0.8."""
    expected = -np.log([0.8, 0.6, 0.1, 0.8]).mean()
    assert negative_log_likelihood(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_perfect_confidence_has_no_calibration_error() -> None:
    """Sure and right."""
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0.0


def test_the_calibration_error_is_the_weighted_gap() -> None:
    """Four answers at 0.9, half of them right: a gap of 0.4."""
    rows = np.tile([0.9, 0.05, 0.05], (4, 1))
    assert expected_calibration_error(rows, np.array([0, 0, 1, 2])) == pytest.approx(0.4)


def test_the_area_under_the_curve_agrees_with_the_reference() -> None:
    """With many ties."""
    random = np.random.default_rng(1)
    scores, positive = random.integers(0, 9, 300).astype(float), random.random(300) < 0.3
    assert area_under_curve(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_an_area_needs_both_kinds() -> None:
    """One kind alone separates from nothing."""
    with pytest.raises(ValueError, match="Expected both kinds"):
        area_under_curve(np.ones(3), np.ones(3, bool))


def test_the_interval_is_wider_over_clusters_than_over_tiles() -> None:
    """Ten copies of one source tile are one observation, not ten."""
    random = np.random.default_rng(2)
    correct = np.repeat(random.random(60) < 0.9, 10)
    by_cluster = cluster_interval(correct, np.repeat(np.arange(60), 10))
    by_tile = cluster_interval(correct, np.arange(600))
    assert by_cluster[0] < correct.mean() < by_cluster[1]
    assert by_cluster[1] - by_cluster[0] > 2 * (by_tile[1] - by_tile[0])
