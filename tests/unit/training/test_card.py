"""The words of a card follow from its figures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ops.prepare import newest_bundled_model
from shared.manifest import CARD_NAME
from training.card_figures import calibration_section
from training.card_layout import interval, table
from training.card_origins import network_section
from training.card_words import (
    CHECKLISTS,
    FIGURE_NAMES,
    LIMITATIONS,
    NOT_YET_MEASURED,
    OUT_OF_SCOPE,
    REFERENCES,
    SOURCES,
    USE,
)
from training.figures import Figurer
from training.plots import (
    draw_confusion,
    draw_reliability,
    draw_risk_coverage,
    draw_robustness,
    reliability,
    risk_coverage,
)

PROBABILITIES = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8]])
LABELS = np.array([0, 1, 2, 2])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.95, 0.99, "0.98 (0.95 to 0.99)"), (0.974, 0.985, "0.980 (0.974 to 0.985)")],
)
def test_decimals_follow_the_interval(low: float, high: float, expected: str) -> None:
    """A wide interval leaves no meaning for a third one."""
    assert interval({"value": 0.98, "low": low, "high": high}) == expected


def test_what_is_not_a_number_is_not_defined() -> None:
    """A precision of answers that nobody gave."""
    assert interval({"value": float("nan"), "low": 0.0, "high": 1.0}) == "not defined"


def test_a_figure_of_one_group_has_no_interval() -> None:
    """It is no sure figure, with an interval of no width."""
    assert interval({"value": 0.913, "low": float("nan"), "high": float("nan")}) == "0.91 (no interval)"


def test_a_table_is_markdown() -> None:
    """A header, a rule, rows."""
    assert table(["a", "b"], [[1, 2]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_every_named_figure_is_computed() -> None:
    """A misspelt name would silently leave a row out."""
    assert set(FIGURE_NAMES) <= set(Figurer(PROBABILITIES, LABELS).figures(np.ones(4)))


def test_both_checklists_are_answered_item_by_item() -> None:
    """CLAIM's 42 items and GMLP's ten principles, without a gap."""
    claim, practice = (list(rows) for rows in CHECKLISTS.values())
    numbers: list[int] = []
    for item, where in claim:
        assert where
        digits = item.split()[:3]
        first = int(digits[0].rstrip(","))
        last = int(digits[2]) if digits[1] == "to" else int(digits[1]) if digits[0].endswith(",") else first
        numbers.extend(range(first, last + 1))
    assert numbers == list(range(1, 43))
    assert [int(item.split()[0]) for item, _ in practice] == list(range(1, 11))


def test_reliability_has_a_point_for_each_filled_bin() -> None:
    """Mean confidence against the share that was right."""
    confidence, share = reliability(PROBABILITIES, LABELS)
    assert confidence == pytest.approx([0.4, 0.7, 0.8, 0.9])
    assert share == [0.0, 1.0, 1.0, 1.0]


def test_risk_falls_when_only_the_surest_answer() -> None:
    """Three of four are right, and the wrong one is the least sure."""
    curve = risk_coverage(PROBABILITIES, LABELS)
    assert curve == [(0.25, 0.0), (0.5, 0.0), (0.75, 0.0), (1.0, 0.25)]


def test_equally_sure_answers_are_equally_wrong() -> None:
    """In whatever order the tiles come."""
    assert risk_coverage(np.tile([0.2, 0.6, 0.2], (4, 1)), np.array([1, 1, 0, 2])) == [
        (0.25, 0.5), (0.5, 0.5), (0.75, 0.5), (1.0, 0.5),
    ]  # fmt: skip


def test_a_threshold_that_no_answer_reaches_has_no_accuracy() -> None:
    """The share is 0, and of none nothing is right or wrong."""
    errors = {"ece": 0.1, "brier": 0.5, "nll": 0.9}
    part = {
        "before": errors, "after": errors, "coverage_classified": 0.0, "accuracy_classified": float("nan"),
    }  # fmt: skip
    text = calibration_section({"kind": "cross-validation", "calibration": part})
    assert "threshold: 0.0% of the answers.\n" in text
    assert "nan" not in text


def test_a_longest_time_is_not_rounded_down() -> None:
    """At most two minutes are no two and a quarter."""
    network = dict.fromkeys(("parameters", "multiply_accumulates", "weights_bytes", "cpu_cores"), 1)
    network |= {"milliseconds_one_tile": 1.0, "milliseconds_a_tile_of_sixteen": 1.0}
    facts = {"network": network, "software": {}, "fold_seconds": [60, 135]}
    assert "| training, each fold | 3 min at most |" in network_section({"provenance": facts})


def test_plots_are_small_pictures(tmp_path: Path) -> None:
    """Each opens as an image of under 100 kB."""
    record = {"change": "grey", "accuracy": 0.9, "low": 0.8, "high": 0.95}
    draw_reliability(tmp_path / "a.png", {"after": (PROBABILITIES, LABELS)})
    draw_risk_coverage(tmp_path / "b.png", risk_coverage(PROBABILITIES, LABELS))
    draw_confusion(tmp_path / "c.png", [[1, 0, 0], [0, 1, 0], [0, 1, 1]])
    draw_robustness(tmp_path / "d.png", [record, record])
    for path in tmp_path.iterdir():
        assert path.stat().st_size < 100_000
        with Image.open(path) as image:
            assert image.width > 200


def test_the_bundled_card_has_the_words_that_a_new_one_would_have() -> None:
    """What no measurement changes is mended in both."""
    card = (newest_bundled_model() / CARD_NAME).read_text(encoding="utf-8")
    words = [USE, REFERENCES, SOURCES, NOT_YET_MEASURED, *OUT_OF_SCOPE, *LIMITATIONS]
    words += [f"| {item} | {where} |" for rows in CHECKLISTS.values() for item, where in rows]
    assert not [text for text in words if text not in card]
