"""Figures with their 95 % intervals, by drawing whole clusters with replacement, fold by fold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.figures import Figurer, Figures
from training.metrics import Labels

DRAWS: Final = 2000
SEED: Final = 1


@dataclass(frozen=True)
class Answers:
    """What weights that never saw these tiles say about them."""

    probabilities: NDArray[np.float64]
    labels: Labels
    #: Tiles of one group are copies of each other, or of one patient: they are drawn together.
    groups: NDArray[np.int64]
    #: Which fold's weights answered.
    folds: NDArray[np.int64]

    def only(self, rows: NDArray[np.int64]) -> "Answers":
        """Return the answers at some rows."""
        return Answers(self.probabilities[rows], self.labels[rows], self.groups[rows], self.folds[rows])


@dataclass(frozen=True)
class Estimate:
    """A figure, and where it would lie in 95 of 100 draws of other clusters: nowhere, if there is but one."""

    value: float
    low: float
    high: float


def estimate(answers: Answers, draws: int = DRAWS, each_group_once: bool = False) -> dict[str, Estimate]:
    """Return each figure as the mean of the folds' figures, with its interval.

    With `each_group_once` every group has the weight of one tile: the figures of one image per cluster, in
    expectation over which one.
    """
    random = np.random.default_rng(SEED)
    totals: list[dict[str, NDArray[np.float64]]] = []
    for fold in np.unique(answers.folds):
        part = answers.only(np.flatnonzero(answers.folds == fold))
        totals.append(_draw(part, draws, each_group_once, random))
    names = totals[0]
    with np.errstate(invalid="ignore"):
        means = {name: np.mean([total[name] for total in totals], axis=0) for name in names}
    return {name: _summarise(values) for name, values in means.items()}


def fold_figures(answers: Answers) -> list[Figures]:
    """Return each fold's figures, in the order of the folds."""
    parts = [answers.only(np.flatnonzero(answers.folds == fold)) for fold in np.unique(answers.folds)]
    return [figures_of(part) for part in parts]


def figures_of(answers: Answers) -> Figures:
    """Return the figures of all answers together, each tile counted once."""
    weights = np.ones(len(answers.labels))
    return Figurer(answers.probabilities, answers.labels).figures(weights)


def rounded(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    """Return the estimates as plain values for a JSON file."""
    return {
        name: {"value": round(item.value, 4), "low": round(item.low, 4), "high": round(item.high, 4)}
        for name, item in estimates.items()
    }


def _draw(
    answers: Answers, draws: int, each_group_once: bool, random: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Return, figure by figure, the value itself and then the value of each draw."""
    _, group = np.unique(answers.groups, return_inverse=True)
    sizes = np.bincount(group)
    base = 1.0 / sizes[group] if each_group_once else np.ones(len(group))
    figurer = Figurer(answers.probabilities, answers.labels)
    rows = [figurer.figures(base)]
    if len(sizes) == 1:  # it could only be drawn again and again, as if nothing were uncertain
        return {name: np.array([value] + [np.nan] * draws) for name, value in rows[0].items()}
    for _ in range(draws):
        drawn = np.bincount(random.integers(0, len(sizes), len(sizes)), minlength=len(sizes))
        rows.append(figurer.figures(base * drawn[group]))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _summarise(values: NDArray[np.float64]) -> Estimate:
    """Return the first value, with the interval of the others; draws without a class say nothing."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not len(drawn):
        return Estimate(float(values[0]), np.nan, np.nan)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(values[0]), float(low), float(high))
