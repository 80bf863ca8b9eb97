"""What a client gets over HTTP is what `training evaluate` scored: same files, same weights, same figures."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ops.prepare import newest_bundled_model
from shared.manifest import MANIFEST_NAME, parse_manifest
from tests.stack import Stack

pytest.importorskip("tensorflow")

from training.dataset import Tile, read_tiles
from training.experiment import SplitPlan
from training.listing import CLASS_NAMES
from training.own_folder import evaluate_folder
from training.splits import split_by_cluster

pytestmark = [
    pytest.mark.integration,
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

TILES_PER_CLASS = 20
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def held_out(real_tiles: Path) -> list[Tile]:
    """Return tiles of the test fold, each of another cluster, and as many of each class."""
    tiles = read_tiles(real_tiles)
    of_cluster: dict[str, Tile] = {}
    for row in split_by_cluster(tiles, SplitPlan()).test:
        of_cluster.setdefault(tiles[row].cluster, tiles[row])
    by_class = {
        name: [tile for tile in of_cluster.values() if tile.class_name == name] for name in CLASS_NAMES
    }
    assert min(map(len, by_class.values())) >= TILES_PER_CLASS
    return [tile for members in by_class.values() for tile in members[:TILES_PER_CLASS]]


@pytest.fixture(scope="module")
def measured(
    real_tiles: Path, held_out: list[Tile], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """Return each tile's probabilities as `evaluate --model --data --groups` computes them."""
    folder = tmp_path_factory.mktemp("measured")
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(tile.path, tile.class_name, tile.cluster) for tile in held_out]
        csv.writer(file).writerows([("path", "class", "cluster"), *rows])
    listed = (folder / "list.csv", "cluster")
    _, verdicts = evaluate_folder(
        newest_bundled_model(), real_tiles, folder, None, listed, draws=2, report=lambda _: None
    )
    return dict(zip(verdicts.paths, verdicts.answers.probabilities, strict=True))


@pytest.fixture(scope="module")
def served(stack: Stack, real_tiles: Path, held_out: list[Tile]) -> dict[str, dict[str, Any]]:
    """Return each tile's finished job; all are submitted before any is asked for, so they share batches."""
    accepted = {tile.path: stack.accept((real_tiles / tile.path).read_bytes()) for tile in held_out}
    return {path: stack.finish(job) for path, job in accepted.items()}


def test_the_live_model_is_the_one_that_was_measured(served: dict[str, dict[str, Any]]) -> None:
    """By version and by the weights' digest."""
    folder = newest_bundled_model()
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    weights = manifest.digest_of(manifest.weights).sha256
    expected = {"name": manifest.name, "version": manifest.version, "sha256": weights}
    assert [job["model"] for job in served.values()] == [expected] * len(served)


def test_served_probabilities_are_the_measured_ones(
    served: dict[str, dict[str, Any]], measured: dict[str, np.ndarray]
) -> None:
    """60 tiles of held-out clusters, within 1e-4 for every class of every tile."""
    assert len(served) == len(measured) == len(CLASS_NAMES) * TILES_PER_CLASS
    answers = np.array(
        [[served[path]["result"]["probabilities"][name] for name in CLASS_NAMES] for path in measured]
    )
    np.testing.assert_allclose(answers, np.array(list(measured.values())), rtol=0, atol=TOLERANCE)
    # Answers that hardly differ from tile to tile would agree whatever was served.
    assert answers.std(axis=0).min() > 0.1
