"""The model version that lies in the repository is complete, true, and as good as it says."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.manifest import MANIFEST_NAME, Manifest, parse_manifest
from worker.engine.decode import decode
from worker.engine.golden import check_golden
from worker.engine.heatmap import occlusion
from worker.engine.pipeline import Pipeline
from worker.engine.preprocess import preprocess

MODELS = Path(__file__).parents[4] / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob(f"*/{MANIFEST_NAME}"))
MAX_PIXELS = 4096 * 4096


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return parse_manifest((folder / MANIFEST_NAME).read_bytes())


@pytest.fixture(scope="module")
def predictor(folder: Path, manifest: Manifest) -> Any:
    from worker.engine.predictor import Predictor  # noqa: PLC0415  # imports TensorFlow, so only here

    return Predictor(folder / manifest.weights, manifest, threads=2)


def test_a_model_is_bundled() -> None:
    """An empty bucket has something to be filled from."""
    assert FOLDERS


def test_every_file_has_its_listed_size_and_digest(folder: Path, manifest: Manifest) -> None:
    """What the worker will check before it opens anything."""
    for file in manifest.files:
        data = (folder / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert manifest.digest_of(manifest.weights).bytes <= 8_000_000


def test_its_claims_stay_inside_the_budget(manifest: Manifest) -> None:
    """More than colours alone can tell, with fewer than 150 million multiply-accumulates."""
    assert float(manifest.metrics["cv_accuracy"]) > 0.93
    assert int(manifest.metrics["multiply_accumulates"]) <= 150_000_000
    assert int(manifest.metrics["parameters"]) <= 2_000_000


@pytest.mark.tensorflow
def test_it_passes_its_golden_tiles(folder: Path, manifest: Manifest, predictor: Any) -> None:
    """The weights answer as they did when they were published."""
    check_golden(predictor, manifest, folder)


@pytest.mark.tensorflow
def test_an_answer_does_not_depend_on_its_batch_mates(manifest: Manifest, predictor: Any) -> None:
    """Alone or among fifteen others: the same probabilities within 1e-5."""
    shape = (21, manifest.input.height, manifest.input.width, 3)
    batch = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    together, _ = predictor.predict(batch)
    alone = np.concatenate([predictor.predict(image[np.newaxis])[0] for image in batch])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.tensorflow
def test_it_knows_the_tiles_that_it_was_fitted_on(
    manifest: Manifest, predictor: Any, real_tiles: Path
) -> None:
    """Served from the stored files, it is at least as accurate as its folds were on tiles they never saw."""
    dataset = pytest.importorskip("training.dataset")
    tiles = dataset.read_tiles(real_tiles)[::20]
    pipeline = Pipeline(predictor, manifest, MAX_PIXELS)
    outcomes = [
        outcome
        for start in range(0, len(tiles), 16)
        for outcome in pipeline.run(
            [(real_tiles / tile.path).read_bytes() for tile in tiles[start : start + 16]]
        )
    ]
    answers = [outcome["result"]["class"] if "result" in outcome else None for outcome in outcomes]
    accuracy = np.mean([answer == tile.class_name for answer, tile in zip(answers, tiles, strict=True)])
    assert accuracy >= float(manifest.metrics["cv_accuracy"])


@pytest.mark.tensorflow
def test_a_heat_map_depends_on_the_weights(
    folder: Path, manifest: Manifest, predictor: Any, real_tiles: Path
) -> None:
    """With random weights it is another one: it shows what was learned and not the image's edges.

    The randomisation test of Adebayo et al. 2018 (arXiv:1810.03292).
    """
    keras = pytest.importorskip("keras")
    random = keras.models.clone_model(keras.models.load_model(folder / manifest.weights, compile=False))
    logits = keras.Model(random.input, random.get_layer(manifest.logits_layer).output)
    correlations = []
    for path in sorted(real_tiles.glob("lung_[as]c[ac]/*.jpeg"))[::1000]:
        tensor = preprocess(decode(path.read_bytes(), MAX_PIXELS), manifest.input)
        index = int(predictor.predict(tensor[np.newaxis])[0].argmax())
        learned = occlusion(lambda batch: predictor.predict(batch)[0], tensor, index)
        unlearned = occlusion(lambda batch: np.asarray(logits(batch.astype(np.float32))), tensor, index)
        correlations.append(np.corrcoef(learned.ravel(), unlearned.ravel())[0, 1])
    assert len(correlations) >= 8
    assert abs(float(np.mean(correlations))) < 0.4
