"""Every figure of a card from one set of weighted answers: cheap enough to be drawn two thousand times.

A weight says how often a tile counts: once in the figure itself, as often as its cluster was drawn in a
bootstrap, one part in its cluster's size where each source tile is to count once.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.listing import CLASS_NAMES
from training.metrics import Labels

#: Accuracy that the answers given are to have, in the figure of how many can be given.
SELECTIVE_ACCURACY: Final = 0.99
SPECIFICITIES: Final = (0.95, 0.99)
BINS: Final = 15

Weights = NDArray[np.float64]
Figures = dict[str, float]


class Figurer:
    """One set of answers with everything sorted beforehand, so that only weights change."""

    def __init__(self, probabilities: NDArray[np.float64], labels: Labels) -> None:
        """Take calibrated probabilities (n, classes) and the truth (n,)."""
        self._labels = labels
        self._predicted = probabilities.argmax(axis=1)
        confidence = probabilities.max(axis=1)
        correct = self._predicted == labels
        self._gap = correct - confidence
        self._bin = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        self._surprise = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))
        truth = np.eye(probabilities.shape[1])[labels]
        self._squared = ((probabilities - truth) ** 2).sum(axis=1)
        self._order = np.argsort(-confidence, kind="stable")
        # Equal confidences are answered together: no threshold tells them apart.
        surest_first = confidence[self._order]
        self._ends = np.flatnonzero(np.append(surest_first[1:] != surest_first[:-1], True))
        self._correct = correct
        self._rankings = _rankings(probabilities, labels)

    def figures(self, weights: Weights) -> Figures:
        """Return every figure by name; one that needs a class without any weight is not a number."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {**self._by_class(weights), **self._by_ranking(weights), **self._by_confidence(weights)}

    def confusion(self, weights: Weights) -> NDArray[np.float64]:
        """Return summed weights, truth by row and prediction by column."""
        count = len(CLASS_NAMES)
        cells = self._labels * count + self._predicted
        return _sum_by(cells, weights, count * count).reshape(count, count)

    def _by_class(self, weights: Weights) -> Figures:
        table = self.confusion(weights)
        hits = table.diagonal()
        recall, precision = hits / table.sum(axis=1), hits / table.sum(axis=0)
        f1 = 2 * hits / (table.sum(axis=0) + table.sum(axis=1))
        columns = {"recall": recall, "precision": precision, "f1": f1}
        return {
            "accuracy": float(hits.sum() / table.sum()),
            "lowest_recall": float(recall.min()),
            **{
                f"{kind}_{name}": float(values[index])
                for kind, values in columns.items()
                for index, name in enumerate(CLASS_NAMES)
            },
        }

    def _by_ranking(self, weights: Weights) -> Figures:
        areas = {name: ranking.area(weights) for name, ranking in self._rankings.items()}
        one_against_rest = [areas.pop(f"auroc_{name}") for name in CLASS_NAMES]
        cancer = self._rankings["auroc_cancer"]
        return {
            "macro_auroc": float(np.mean(one_against_rest)),
            **areas,
            **{
                f"sensitivity_at_{value * 100:.0f}_specificity": cancer.sensitivity(weights, value)
                for value in SPECIFICITIES
            },
        }

    def _by_confidence(self, weights: Weights) -> Figures:
        total = weights.sum()
        gaps = np.bincount(self._bin, weights=weights * self._gap, minlength=BINS)
        given = np.cumsum(weights[self._order])[self._ends]
        right = np.cumsum((weights * self._correct)[self._order])[self._ends]
        enough = given[(right >= SELECTIVE_ACCURACY * given - 1e-9) & (given > 0)]
        return {
            "ece": float(np.abs(gaps).sum() / total),
            "brier": float(weights @ self._squared / total),
            "nll": float(weights @ self._surprise / total),
            "coverage_at_99_accuracy": float(enough[-1] / total) if len(enough) else 0.0,
        }


class Ranking:
    """Scores with a truth of two kinds, with ties put together beforehand."""

    def __init__(self, scores: NDArray[np.float64], positive: NDArray[np.bool_], rows: NDArray[np.int64]):
        """Take scores and truth of the tiles at `rows`, which is where their weights are found."""
        values, self._place = np.unique(scores, return_inverse=True)
        self._count = len(values)
        self._positive = positive
        self._rows = rows

    def area(self, weights: Weights) -> float:
        """Return the chance that a positive scores over a negative one; ties count half."""
        positives, negatives = self._sums(weights)
        below = np.cumsum(negatives) - negatives / 2
        return float((positives * below).sum() / (positives.sum() * negatives.sum()))

    def sensitivity(self, weights: Weights, specificity: float) -> float:
        """Return the share of positives over a threshold that so many negatives stay under."""
        positives, negatives = (part[::-1].cumsum() for part in self._sums(weights))
        allowed = negatives <= (1 - specificity) * negatives[-1] + 1e-9
        return float(positives[allowed][-1] / positives[-1]) if allowed.any() else 0.0

    def _sums(self, weights: Weights) -> tuple[Weights, Weights]:
        chosen = weights[self._rows]
        positives = _sum_by(self._place, chosen * self._positive, self._count)
        everything = _sum_by(self._place, chosen, self._count)
        return positives, everything - positives


def _rankings(probabilities: NDArray[np.float64], labels: Labels) -> Mapping[str, Ranking]:
    everything, carcinoma = np.arange(len(labels)), np.flatnonzero(labels > 0)
    pair = probabilities[carcinoma, 1:]
    squamous = pair[:, 1] / np.maximum(pair.sum(axis=1), 1e-12)
    return {
        **{
            f"auroc_{name}": Ranking(probabilities[:, index], labels == index, everything)
            for index, name in enumerate(CLASS_NAMES)
        },
        "auroc_aca_against_scc": Ranking(squamous, labels[carcinoma] == 2, carcinoma),
        "auroc_cancer": Ranking(1.0 - probabilities[:, 0], labels > 0, everything),
    }


def _sum_by(places: NDArray[np.int64], weights: Weights, count: int) -> Weights:
    return np.bincount(places, weights=weights, minlength=count).astype(np.float64)
