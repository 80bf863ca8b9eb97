"""Score weights on tiles that they never saw, changed in named ways."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.manifest import InputSpec
from training.inference import Forward
from training.metrics import Labels, accuracy, cluster_interval, recalls
from training.perturbations import Pixels, changes, eight_views
from worker.engine.preprocess import preprocess

#: Copies of each cluster that are changed: copies carry little information and cost minutes.
COPIES: Final = 2
_SEED: Final = 1

#: Returns a tile as the worker decodes it, by its row.
ReadTile = Callable[[int], Pixels]
Record = dict[str, float | str]


def choose_rows(groups: NDArray[np.int64], copies: int = COPIES) -> NDArray[np.int64]:
    """Return the rows of a few tiles of each group, chosen by a fixed seed."""
    random = np.random.default_rng(_SEED)
    chosen = [
        random.choice(rows, min(copies, len(rows)), replace=False)
        for rows in (np.flatnonzero(groups == group) for group in np.unique(groups))
    ]
    return np.sort(np.concatenate(chosen))


def measure_changes(
    parts: Sequence[tuple[Forward, NDArray[np.int64]]],
    read_tile: ReadTile,
    spec: InputSpec,
    labels: Labels,
    groups: NDArray[np.int64],
    report: Callable[[str], None] = print,
) -> list[Record]:
    """Return accuracy, lowest recall and agreement with the unchanged tile for every change.

    `parts` are functions from inputs to logits, each with the rows that its weights never saw.
    """
    rows = np.concatenate([part for _, part in parts])
    plain = _answer(parts, lambda row: preprocess(read_tile(row), spec))
    records = [_record("as it is", plain, plain, labels[rows], groups[rows])]
    for name, change in changes().items():
        report(f"robustness: {name}")
        seed = zlib.crc32(name.encode())

        def changed(row: int, change: Callable[..., Pixels] = change, seed: int = seed) -> Pixels:
            return preprocess(change(read_tile(row), np.random.default_rng((seed, row))), spec)

        records.append(_record(name, _answer(parts, changed), plain, labels[rows], groups[rows]))
    return records


def measure_symmetry(
    parts: Sequence[tuple[Forward, NDArray[np.int64]]],
    inputs: NDArray[np.uint8],
    labels: Labels,
    groups: NDArray[np.int64],
) -> Mapping[str, float]:
    """Return how far a tile's eight flips and quarter turns get the same class."""
    rows = np.concatenate([part for _, part in parts])
    views = [
        _answer(parts, lambda row, view=view: eight_views(inputs[row])[view]).argmax(axis=1)  # type: ignore[misc]
        for view in range(8)
    ]
    same = np.array(views) == views[0]
    right = np.array(views) == labels[rows]
    low, high = cluster_interval(same.all(axis=0), groups[rows])
    return {
        "views_that_agree": float(same[1:].mean()),
        "tiles_whose_eight_views_agree": float(same.all(axis=0).mean()),
        "tiles_whose_eight_views_agree_low": low,
        "tiles_whose_eight_views_agree_high": high,
        "mean_accuracy_of_the_views": float(right.mean()),
    }


def _answer(
    parts: Sequence[tuple[Forward, NDArray[np.int64]]], prepare: Callable[[int], Pixels]
) -> NDArray[np.float32]:
    return np.concatenate([forward(np.stack([prepare(int(row)) for row in rows])) for forward, rows in parts])


def _record(
    name: str,
    logits: NDArray[np.float32],
    plain: NDArray[np.float32],
    labels: Labels,
    groups: NDArray[np.int64],
) -> Record:
    correct = logits.argmax(axis=1) == labels
    low, high = cluster_interval(correct, groups)
    return {
        "change": name,
        "accuracy": round(accuracy(logits, labels), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "lowest_recall": round(min(recalls(logits, labels)), 4),
        "agreement": round(float((logits.argmax(axis=1) == plain.argmax(axis=1)).mean()), 4),
    }
