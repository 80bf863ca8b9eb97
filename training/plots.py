"""Draw what a card shows, as small PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.listing import CLASS_NAMES
from training.metrics import Labels

_DPI: Final = 90
_SIZE: Final = (4.2, 3.6)
_INK: Final = "#33475b"
_FAINT: Final = "#b8c4ce"


def draw_reliability(path: Path, series: Mapping[str, tuple[NDArray[np.float64], Labels]]) -> None:
    """Draw accuracy over confidence in 15 bins, one line per named set of probabilities."""
    figure, axes = _figure("confidence", "accuracy")
    axes.plot([1 / 3, 1], [1 / 3, 1], color=_FAINT, linewidth=1)
    for name, (probabilities, labels) in series.items():
        centres, shares = reliability(probabilities, labels)
        axes.plot(centres, shares, marker="o", markersize=3, label=name)
    axes.legend(frameon=False)
    _save(figure, path)


def draw_risk_coverage(path: Path, curve: Sequence[tuple[float, float]]) -> None:
    """Draw the share of wrong answers among the surest, over how many answers are given."""
    figure, axes = _figure("coverage", "share of wrong answers")
    axes.plot([point[0] for point in curve], [point[1] for point in curve], color=_INK)
    axes.axhline(0.01, color=_FAINT, linewidth=1)
    axes.set_ylim(bottom=0)
    _save(figure, path)


def draw_confusion(path: Path, table: Sequence[Sequence[float]]) -> None:
    """Draw counts, truth by row, shaded by the share of the row."""
    figure, axes = _figure("answer", "truth")
    counts = np.array(table)
    axes.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1.6)
    for row in range(len(counts)):
        for column in range(len(counts)):
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=_INK)
    axes.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    axes.set_yticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    _save(figure, path)


def draw_robustness(path: Path, records: Sequence[Mapping[str, float | str]]) -> None:
    """Draw the accuracy under each change with its interval."""
    figure, axes = _figure("accuracy", "")
    figure.set_size_inches(6.0, 0.22 * len(records) + 0.8)
    names = [str(record["change"]) for record in records]
    values, lows, highs = (
        np.array([float(record[key]) for record in records]) for key in ("accuracy", "low", "high")
    )
    axes.errorbar(
        values, range(len(records)), xerr=np.maximum([values - lows, highs - values], 0), fmt="o", color=_INK
    )
    axes.set_yticks(range(len(records)), names)
    axes.invert_yaxis()
    _save(figure, path)


def reliability(
    probabilities: NDArray[np.float64], labels: Labels, bins: int = 15
) -> tuple[list[float], list[float]]:
    """Return mean confidence and accuracy of every bin that has an answer."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    filled = [index == number for number in range(bins) if (index == number).any()]
    return [float(confidence[rows].mean()) for rows in filled], [
        float(correct[rows].mean()) for rows in filled
    ]


def risk_coverage(probabilities: NDArray[np.float64], labels: Labels) -> list[tuple[float, float]]:
    """Return coverage and share of wrong answers at every hundredth of the answers, the surest first.

    Equally sure answers count as equally wrong: nothing says which of them would be given first.
    """
    surest_first, tie, sizes = np.unique(-probabilities.max(axis=1), return_inverse=True, return_counts=True)
    misses = np.bincount(tie, weights=probabilities.argmax(axis=1) != labels, minlength=len(surest_first))
    wrong = np.repeat(misses / sizes, sizes)
    risk = np.cumsum(wrong) / np.arange(1, len(wrong) + 1)
    last = np.unique(np.ceil(np.linspace(0.01, 1, 100) * len(wrong)).astype(np.int64)) - 1
    return [(round(float((row + 1) / len(wrong)), 4), round(float(risk[row]), 4)) for row in last]


def _figure(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})
