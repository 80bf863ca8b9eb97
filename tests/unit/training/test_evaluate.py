"""What an evaluated run says of itself, to whoever publishes it."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.errors import TrainingError

pytestmark = pytest.mark.tensorflow

evaluate = pytest.importorskip("training.evaluate")


def test_a_figure_that_could_not_be_measured_is_no_figure(tmp_path: Path) -> None:
    """Nothing over the threshold has no accuracy; the others are published all the same."""
    summary = {"cv_accuracy": 0.5, "cv_coverage_classified": 0.0, "cv_accuracy_classified": None}
    (tmp_path / "metrics.json").write_text(json.dumps({"summary": summary}), encoding="utf-8")
    assert evaluate.read_metrics(tmp_path) == {"cv_accuracy": 0.5, "cv_coverage_classified": 0.0}


def test_of_no_classified_answers_none_is_wrong() -> None:
    """An accuracy of 0 would say that all were."""
    sure = np.tile([0.6, 0.2, 0.2], (3, 1)), np.zeros(3, np.int64)
    assert evaluate.score_selection(*sure, 0.5) == {"coverage_classified": 1.0, "accuracy_classified": 1.0}
    figures = evaluate.score_selection(*sure, 0.7)
    assert figures["coverage_classified"] == 0.0
    assert np.isnan(figures["accuracy_classified"])


def test_a_run_without_figures_is_named(tmp_path: Path) -> None:
    """With what to run first."""
    with pytest.raises(TrainingError, match="Run `evaluate` first"):
        evaluate.read_metrics(tmp_path)
