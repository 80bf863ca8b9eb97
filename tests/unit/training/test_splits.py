"""No copy of a tile lies on two sides of a split."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.dataset import Tile, labels_of, read_tiles
from training.errors import TrainingError
from training.experiment import SplitPlan
from training.splits import (
    assert_no_leak,
    digest_of_split,
    folds_by_cluster,
    leakage_groups,
    split_by_cluster,
)

PLAN = SplitPlan(test_folds=3, held_out_folds=3)


@pytest.fixture(scope="module")
def tiles(data: Path) -> tuple[Tile, ...]:
    return read_tiles(data)


def test_clusters_stay_whole(tiles: tuple[Tile, ...]) -> None:
    """Each cluster is in exactly one part, and every part has every class."""
    split = split_by_cluster(tiles, PLAN)
    clusters = [{tiles[row].cluster for row in rows} for rows in split.parts().values()]
    assert sum(len(part) for part in clusters) == len(set.union(*clusters)) == 27
    for rows in split.parts().values():
        assert set(labels_of(tiles)[rows].tolist()) == {0, 1, 2}


def test_the_test_folds_cover_every_tile_once(tiles: tuple[Tile, ...]) -> None:
    """Cross-validation over the folds scores each tile exactly once."""
    folds = [split_by_cluster(tiles, PLAN.model_copy(update={"test_fold": fold})) for fold in range(3)]
    rows = np.concatenate([split.test for split in folds])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(tiles)))


def test_a_byte_identical_copy_joins_its_clusters(tiles: tuple[Tile, ...]) -> None:
    """Two clusters that share a file are one group, also at one remove."""
    linked = list(tiles)
    linked[0] = replace(tiles[0], sha256=tiles[4].sha256)
    linked[5] = replace(tiles[5], sha256=tiles[8].sha256)
    groups = leakage_groups(linked)
    assert len({groups[0], groups[1], groups[4], groups[5], groups[8]}) == 1
    assert len(set(groups.tolist())) == 27 - 2
    split = split_by_cluster(linked, PLAN)
    homes = [name for name, rows in split.parts().items() if {0, 4, 8} & set(rows.tolist())]
    assert len(homes) == 1


def test_a_leaking_cluster_is_caught(tiles: tuple[Tile, ...]) -> None:
    """Moving one copy to the other side is an error that names the cluster."""
    split = split_by_cluster(tiles, PLAN)
    moved = split.test[:1]
    leaky = replace(split, test=split.test[1:], train=np.concatenate([split.train, moved]))
    with pytest.raises(ValueError, match=f"Expected {tiles[moved[0]].cluster} in one part"):
        assert_no_leak(tiles, leaky)


def test_a_leaking_file_is_caught(tiles: tuple[Tile, ...]) -> None:
    """The same bytes under two clusters on two sides are an error as well."""
    split = split_by_cluster(tiles, PLAN)
    same = list(tiles)
    same[split.test[0]] = replace(tiles[split.test[0]], sha256=tiles[split.train[0]].sha256)
    with pytest.raises(ValueError, match="in one part"):
        assert_no_leak(same, split)


def test_a_lost_tile_is_caught(tiles: tuple[Tile, ...]) -> None:
    """Every tile has a part."""
    split = split_by_cluster(tiles, PLAN)
    with pytest.raises(ValueError, match="Expected each of 54 tiles in one part"):
        assert_no_leak(tiles, replace(split, test=split.test[1:]))


def test_a_seed_decides_the_split(tiles: tuple[Tile, ...]) -> None:
    """The digest is equal for equal seeds and differs for others."""
    digests = [
        digest_of_split(tiles, split_by_cluster(tiles, PLAN.model_copy(update={"seed": seed})))
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_fold_that_does_not_exist_is_refused(tiles: tuple[Tile, ...]) -> None:
    """Folds count from 0."""
    with pytest.raises(TrainingError, match="Expected a test fold under 3"):
        split_by_cluster(tiles, PLAN.model_copy(update={"test_fold": 3}))


def test_too_few_clusters_of_a_class_are_refused(tiles: tuple[Tile, ...]) -> None:
    """A part without a class, or without any tile, would end hours of training without a figure."""
    with pytest.raises(TrainingError, match=r"at least 10 clusters of each class.*'lung_n': 9"):
        folds_by_cluster(tiles, PLAN.model_copy(update={"test_folds": 10}))
    with pytest.raises(TrainingError, match=r"at least 7 clusters of each class.*'lung_n': 6"):
        split_by_cluster(tiles, PLAN.model_copy(update={"held_out_folds": 7}))
    assert len(folds_by_cluster(tiles, PLAN.model_copy(update={"test_folds": 9}))) == 9
