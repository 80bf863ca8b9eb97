"""Logits become probabilities, and probabilities a verdict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.calibration import calibrate, judge

LOGITS = np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]], np.float32)


def test_probabilities_sum_to_one() -> None:
    """Each row is a distribution."""
    np.testing.assert_allclose(calibrate(LOGITS, 1.3).sum(axis=1), 1.0, atol=1e-12)


def test_a_temperature_above_one_softens_without_changing_the_order() -> None:
    """Less confident, same winner."""
    sharp, soft = calibrate(LOGITS, 1.0)[0], calibrate(LOGITS, 3.0)[0]
    assert soft.max() < sharp.max()
    assert list(np.argsort(soft)) == list(np.argsort(sharp))


def test_huge_logits_do_not_overflow() -> None:
    """exp(5000) is never computed."""
    row = calibrate(np.array([[5000.0, 0.0, -5000.0]], np.float32), 1.0)[0]
    np.testing.assert_allclose(row, [1.0, 0.0, 0.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_stays_so_and_spoils_no_other(bad: float) -> None:
    """The pipeline finds the broken row; its neighbour is right."""
    rows = calibrate(np.array([[bad, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32), 1.0)
    assert not np.isfinite(rows[0]).all()
    np.testing.assert_allclose(rows[1], 1 / 3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    """Zero, less, and no number at all."""
    with pytest.raises(ValueError, match="Expected a positive temperature"):
        calibrate(LOGITS, temperature)


@given(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3), st.floats(0.05, 20))
def test_any_logits_give_a_distribution(logits: list[float], temperature: float) -> None:
    """No finite input leads to anything but probabilities."""
    row = calibrate(np.array([logits], np.float32), temperature)[0]
    assert row.min() >= 0
    assert abs(row.sum() - 1) < 1e-9


@pytest.mark.parametrize(
    ("row", "verdict"), [([0.7, 0.2, 0.1], "classified"), ([0.59, 0.41, 0.0], "indeterminate")]
)
def test_the_verdict_follows_the_threshold(row: list[float], verdict: str) -> None:
    """Under the threshold the answer is indeterminate; the likeliest class is named all the same."""
    judgement = judge(np.array(row), 0.6)
    assert (judgement.index, judgement.confidence, judgement.verdict) == (0, row[0], verdict)


def test_a_confidence_at_the_threshold_is_classified() -> None:
    """The threshold itself belongs to the classified side."""
    assert judge(np.array([0.25, 0.75]), 0.75).verdict == "classified"
