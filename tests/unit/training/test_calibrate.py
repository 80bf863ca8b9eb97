"""What is called `classified` is right as often as is promised, on the answers that it was fitted on."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.tensorflow

calibrate = pytest.importorskip("training.calibrate")


def answers(*confidence: float) -> NDArray[np.float64]:
    """Return rows that say the first class with these confidences."""
    first = np.array(confidence)
    return np.stack([first, (1 - first) * 0.6, (1 - first) * 0.4], axis=1)


def share_right(probabilities: NDArray[np.float64], labels: NDArray[np.int64], threshold: float) -> float:
    given = probabilities.max(axis=1) >= threshold
    return float((probabilities.argmax(axis=1) == labels)[given].mean())


def test_the_lowest_sufficient_percent_is_taken() -> None:
    """99 of 100 from 0.83 on are right, and one more under it is wrong."""
    probabilities = answers(*np.linspace(0.999, 0.831, 100), 0.829)
    labels = np.array([0] * 99 + [1, 1])
    assert calibrate.indeterminate_threshold(probabilities, labels) == 0.83


def test_a_threshold_keeps_its_promise_after_it_is_rounded() -> None:
    """What makes up for an error lies just under the next percent: with it gone, the error weighs more."""
    probabilities = answers(0.95, *[0.905] * 110)
    labels = np.array([1] + [0] * 110)
    threshold = calibrate.indeterminate_threshold(probabilities, labels)
    assert threshold == 0.5
    probabilities = answers(0.95, *[0.905] * 110, *[0.89] * 10)
    labels = np.array([1] + [0] * 110 + [1] * 10)
    threshold = calibrate.indeterminate_threshold(probabilities, labels)
    assert threshold == 0.9
    assert share_right(probabilities, labels, threshold) >= 0.99


def test_equally_sure_answers_share_one_side_of_the_threshold() -> None:
    """Where the right ones happen to come first, the wrong ones are given all the same."""
    probabilities = answers(*[0.999] * 100, *[0.9] * 20)
    labels = np.array([0] * 110 + [1] * 10)
    threshold = calibrate.indeterminate_threshold(probabilities, labels)
    assert share_right(probabilities, labels, threshold) >= 0.99


def test_where_nothing_is_right_often_enough_only_the_surest_is_given() -> None:
    """And an answer that has less than half of the probability never is."""
    assert calibrate.indeterminate_threshold(answers(0.9, 0.8, 0.7), np.array([1, 1, 1])) == 0.9
    assert calibrate.indeterminate_threshold(answers(0.4, 0.38), np.array([0, 0])) == 0.5
