"""Describe a set of labelled tiles in the numbers that a card states."""

from collections.abc import Sequence
from typing import Any

from training.dataset import Tile, digest_of_tiles
from training.listing import CLASS_NAMES
from training.splits import leakage_groups


def dataset_facts(tiles: Sequence[Tile]) -> dict[str, Any]:
    """Return counts, class by class, and the digest of every path, class, cluster and content."""
    return {
        "dataset_sha256": digest_of_tiles(tiles),
        "tiles": len(tiles),
        "clusters": len({tile.cluster for tile in tiles}),
        "groups": len(set(leakage_groups(tiles).tolist())),
        "identical_files": len(tiles) - len({tile.sha256 for tile in tiles}),
        "classes": {
            name: {
                "tiles": sum(tile.class_name == name for tile in tiles),
                "clusters": len({tile.cluster for tile in tiles if tile.class_name == name}),
            }
            for name in CLASS_NAMES
        },
    }
