"""Deal clusters out to parts so that no copy of a tile lies on two sides."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from training.dataset import Tile, labels_of
from training.errors import TrainingError
from training.experiment import SplitPlan
from training.listing import CLASS_NAMES


@dataclass(frozen=True)
class Split:
    """Row numbers into the tiles, sorted, for each use; together they are all rows, each once."""

    #: Fits the weights.
    train: NDArray[np.int64]
    #: Chooses between experiments.
    validation: NDArray[np.int64]
    #: Fits temperature and thresholds.
    calibration: NDArray[np.int64]
    #: Scored once, when everything else is decided.
    test: NDArray[np.int64]

    def parts(self) -> dict[str, NDArray[np.int64]]:
        """Return the parts by name."""
        return {
            "train": self.train,
            "validation": self.validation,
            "calibration": self.calibration,
            "test": self.test,
        }


def split_by_cluster(tiles: Sequence[Tile], plan: SplitPlan) -> Split:
    """Return a split in which clusters, and clusters that share a byte-identical file, stay whole.

    Raises:
        TrainingError: if the test fold does not exist, or a class has too few clusters to be dealt out.
        ValueError: if a part would leak into another.
    """
    if plan.test_fold >= plan.test_folds:
        raise TrainingError(f"Expected a test fold under {plan.test_folds}. Received: {plan.test_fold}")
    groups, labels = leakage_groups(tiles), labels_of(tiles)
    everything = np.arange(len(tiles))
    rest, test = _deal(everything, groups, labels, plan.test_folds, plan.seed)[plan.test_fold]
    held_out = _deal(rest, groups, labels, plan.held_out_folds, plan.seed)
    validation, calibration = held_out[0][1], held_out[1][1]
    train = np.setdiff1d(rest, np.concatenate([validation, calibration]))
    split = Split(train, validation, calibration, test)
    assert_no_leak(tiles, split)
    return split


def folds_by_cluster(tiles: Sequence[Tile], plan: SplitPlan) -> tuple[Split, ...]:
    """Return one split per test fold in which all other clusters train: cross-validation's splits.

    Nothing is chosen or fitted on held-out clusters within a fold, so no cluster is set aside for that.

    Raises:
        TrainingError: if a class has fewer clusters than there are folds.
        ValueError: if a part would leak into another.
    """
    dealt = _deal(np.arange(len(tiles)), leakage_groups(tiles), labels_of(tiles), plan.test_folds, plan.seed)
    nothing = np.empty(0, np.int64)
    splits = tuple(Split(train, nothing, nothing, test) for train, test in dealt)
    for split in splits:
        assert_no_leak(tiles, split)
    return splits


def folds_of_groups(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int
) -> NDArray[np.int64] | None:
    """Return the fold that tests each tile, or None where a class has fewer groups than folds."""
    if min(_groups_of_each_class(labels, groups).values()) < folds:
        return None
    tested = np.empty(len(labels), np.int64)
    for number, (_, test) in enumerate(_deal(np.arange(len(labels)), groups, labels, folds, seed=1)):
        tested[test] = number
    return tested


def everything_trains(tiles: Sequence[Tile]) -> Split:
    """Return the split of a release: it has no test tiles, so it can have no figures of its own."""
    nothing = np.empty(0, np.int64)
    return Split(np.arange(len(tiles)), nothing, nothing, nothing)


def leakage_groups(tiles: Sequence[Tile]) -> NDArray[np.int64]:
    """Return a group number per tile: tiles that share a cluster or a digest, at any remove, share it."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for tile in tiles:
        parent[root(f"file {tile.sha256}")] = root(f"cluster {tile.cluster}")
    roots = [root(f"cluster {tile.cluster}") for tile in tiles]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(roots))}
    return np.array([numbers[name] for name in roots], dtype=np.int64)


def assert_no_leak(tiles: Sequence[Tile], split: Split) -> None:
    """Check that parts are disjoint and complete, and share neither a cluster nor a byte-identical file.

    Raises:
        ValueError: naming what lies on two sides.
    """
    rows = np.concatenate(list(split.parts().values()))
    if not np.array_equal(np.sort(rows), np.arange(len(tiles))):
        raise ValueError(f"Expected each of {len(tiles)} tiles in one part. Received: {len(rows)} rows")
    seen: dict[str, str] = {}
    for part, indices in split.parts().items():
        for index in indices:
            for key in (tiles[index].cluster, tiles[index].sha256):
                if seen.setdefault(key, part) != part:
                    raise ValueError(f"Expected {key} in one part. Received: {seen[key]} and {part}")


def digest_of_split(tiles: Sequence[Tile], split: Split) -> str:
    """Return a digest of which file, by content, is in which part."""
    parts = {
        name: sorted(tiles[index].sha256 for index in indices) for name, indices in split.parts().items()
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _groups_of_each_class(labels: NDArray[np.int64], groups: NDArray[np.int64]) -> dict[str, int]:
    return {
        CLASS_NAMES[label]: len(np.unique(groups[labels == label])) for label in np.unique(labels).tolist()
    }


def _deal(
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    labels: NDArray[np.int64],
    folds: int,
    seed: int,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    counts = _groups_of_each_class(labels[rows], groups[rows])
    if min(counts.values()) < folds:
        raise TrainingError(
            f"Expected at least {folds} clusters of each class, to deal them into {folds} parts."
            f" Received: {counts}"
        )
    dealer = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    return [(rows[kept], rows[held]) for kept, held in dealer.split(rows, labels[rows], groups[rows])]
