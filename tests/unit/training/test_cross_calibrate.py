"""A fold's temperature and threshold come from the other folds alone."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.tensorflow

cross_calibrate = pytest.importorskip("training.cross_calibrate")
outputs = pytest.importorskip("training.outputs")

LABELS = np.arange(600) % 3


def logits(rows: NDArray[np.int64], scale: float) -> NDArray[np.float32]:
    """Return answers that are right nine times in ten, and surer of it with a larger scale."""
    random = np.random.default_rng(int(rows[0]))
    values = random.normal(0, 1, (len(rows), 3))
    values[np.arange(len(rows)), LABELS[rows]] += 2.5
    return (scale * values).astype(np.float32)


def three_folds(scales: tuple[float, float, float]) -> list[object]:
    parts = []
    for fold, scale in enumerate(scales):
        rows = np.arange(200) + 200 * fold
        parts.append(outputs.Outputs(rows, logits(rows, scale), np.zeros((200, 4), np.float32)))
    return parts


def test_a_folds_own_answers_do_not_move_its_temperature() -> None:
    """The third fold is far too sure of itself: only the two others learn from that."""
    calm = cross_calibrate.gather(three_folds((1, 1, 1)), LABELS)
    wild = cross_calibrate.gather(three_folds((1, 1, 8)), LABELS)
    assert wild.temperatures[2] == calm.temperatures[2]
    assert wild.temperatures[0] > 1.5 * calm.temperatures[0]


def test_a_folds_own_answers_do_not_move_its_threshold() -> None:
    """Nor by way of the others' temperatures, which are fitted on its labels."""
    calm = cross_calibrate.gather(three_folds((1, 1, 1)), LABELS)
    wild = cross_calibrate.gather(three_folds((1, 1, 8)), LABELS)
    assert wild.indeterminate_below[2] == calm.indeterminate_below[2]
    assert wild.indeterminate_below[0] != calm.indeterminate_below[0]


def test_rows_keep_their_fold_and_label() -> None:
    """600 tiles, 200 a fold, each with its truth and a row that sums to 1."""
    held_out = cross_calibrate.gather(three_folds((1, 2, 1)), LABELS)
    np.testing.assert_array_equal(held_out.rows, np.arange(600))
    np.testing.assert_array_equal(held_out.labels, LABELS)
    np.testing.assert_array_equal(np.bincount(held_out.folds), [200, 200, 200])
    np.testing.assert_allclose(held_out.probabilities.sum(axis=1), 1.0)
    assert held_out.thresholds.shape == (600,)


def test_a_temperature_never_changes_the_class() -> None:
    """It moves confidence alone."""
    held_out = cross_calibrate.gather(three_folds((1, 2, 4)), LABELS)
    np.testing.assert_array_equal(held_out.probabilities.argmax(axis=1), held_out.uncalibrated.argmax(axis=1))


def test_one_fold_alone_has_no_others() -> None:
    """Nested calibration needs at least two."""
    with pytest.raises(ValueError, match="at least two folds"):
        cross_calibrate.gather(three_folds((1, 1, 1))[:1], LABELS)
