"""The network behind the pipeline, with a tiny one that is built here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.errors import InvalidModel
from shared.manifest import FeatureStatistics, Manifest

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

keras = pytest.importorskip("keras")


def build(classes: int = 3, side: int = 8, logits: str = "logits") -> Any:
    """Return a network of one convolution with random weights."""
    keras.utils.set_random_seed(1)
    image = keras.Input((side, side, 3))
    values = keras.layers.Rescaling(1 / 127.5, -1)(image)
    values = keras.layers.Conv2D(5, 3)(values)
    values = keras.layers.BatchNormalization()(values)
    values = keras.layers.GlobalAveragePooling2D(name="features")(values)
    values = keras.layers.Dense(classes, name=logits)(values)
    return keras.Model(image, keras.layers.Softmax()(values))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    build().save(path)
    return path


@pytest.fixture
def batch() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)


def load(path: Path, manifest: Manifest, buckets: tuple[int, ...] = (1, 2, 4)) -> Any:
    from worker.engine.predictor import Predictor  # noqa: PLC0415  # imports TensorFlow, so only here

    return Predictor(path, manifest, threads=1, buckets=buckets)


def test_it_gives_logits_and_features(weights: Path, manifest: Manifest, batch: NDArray[np.uint8]) -> None:
    """One row per image, float32, and the same as the plain Keras model's."""
    logits, features = load(weights, manifest).predict(batch)
    assert (logits.shape, features.shape) == ((11, 3), (11, 5))
    assert logits.dtype == features.dtype == np.float32
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    received = np.asarray(build()(batch.astype(np.float32)))
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 11])
def test_a_result_does_not_depend_on_its_batch_mates(
    weights: Path, manifest: Manifest, batch: NDArray[np.uint8], count: int
) -> None:
    """Padded, split or alone: the same logits within 1e-5."""
    predictor = load(weights, manifest)
    together, _ = predictor.predict(batch[:count])
    alone = np.concatenate([predictor.predict(batch[row : row + 1])[0] for row in range(count)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_empty_batch_gives_empty_answers(weights: Path, manifest: Manifest) -> None:
    """No image, no row."""
    logits, features = load(weights, manifest).predict(np.zeros((0, 8, 8, 3), np.uint8))
    assert (logits.shape, features.shape) == ((0, 3), (0, 5))


def test_warming_up_traces_every_bucket_and_no_batch_traces_again(
    weights: Path, manifest: Manifest, batch: NDArray[np.uint8]
) -> None:
    """After warm-up no job waits for a compilation."""
    predictor = load(weights, manifest)
    predictor.warm_up()
    traced = predictor._forward.experimental_get_tracing_count()
    for count in range(1, 12):
        predictor.predict(batch[:count])
    assert traced == predictor._forward.experimental_get_tracing_count() == 3


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 9, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32)], ids=["shape", "type"]
)
def test_a_batch_of_another_shape_or_type_is_refused(
    weights: Path, manifest: Manifest, wrong: NDArray[Any]
) -> None:
    """Pixels that were scaled already would give confident nonsense."""
    with pytest.raises(ValueError, match="Expected uint8"):
        load(weights, manifest).predict(wrong)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"classes": 4}, "Expected 3 classes"),
        ({"side": 16}, "Expected a model input of shape"),
        ({"logits": "head"}, "Expected a layer named logits"),
    ],
)
def test_a_model_that_contradicts_its_manifest_is_invalid(
    tmp_path: Path, manifest: Manifest, options: dict[str, Any], reason: str
) -> None:
    """Another class count, input or layer name is found when the model is loaded."""
    path = tmp_path / "model.keras"
    build(**options).save(path)
    with pytest.raises(InvalidModel, match=reason):
        load(path, manifest)


def test_statistics_of_other_features_are_invalid(weights: Path, manifest: Manifest) -> None:
    """Five features, statistics of four: found when the model is loaded, not at the first image."""
    features = FeatureStatistics(projection=((1.0,) * 4,), centres=((0.0,),), distance=1.0)
    gates = manifest.gates.model_copy(update={"features": features})
    with pytest.raises(InvalidModel, match=r"statistics of 5 features. Received: 4"):
        load(weights, manifest.model_copy(update={"gates": gates}))


@pytest.mark.parametrize("content", [b"", b"not an archive", None], ids=["empty", "text", "missing"])
def test_an_archive_that_cannot_be_loaded_is_an_invalid_model(
    tmp_path: Path, manifest: Manifest, content: bytes | None
) -> None:
    """Whatever Keras raises, the operator reads one error."""
    path = tmp_path / "model.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidModel, match="Expected a loadable Keras archive"):
        load(path, manifest)


def test_a_truncated_archive_is_an_invalid_model(weights: Path, manifest: Manifest) -> None:
    """Half a file is no model."""
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(InvalidModel):
        load(weights, manifest)


def test_an_older_file_format_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    """HDF5 files escape Keras' safe mode."""
    with pytest.raises(InvalidModel, match=r"Expected weights in a \.keras archive"):
        load(tmp_path / "model.h5", manifest)


def test_a_model_with_code_in_it_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    """A Lambda layer carries Python, which safe mode does not run."""
    image = keras.Input((8, 8, 3))
    values = keras.layers.Lambda(lambda values: values * 2.0)(image)
    values = keras.layers.GlobalAveragePooling2D(name="features")(values)
    path = tmp_path / "model.keras"
    keras.Model(image, keras.layers.Dense(3, name="logits")(values)).save(path)
    with pytest.raises(InvalidModel, match="Expected a loadable Keras archive"):
        load(path, manifest)


@pytest.mark.parametrize("buckets", [(), (0, 2)])
def test_buckets_must_be_positive(weights: Path, manifest: Manifest, buckets: tuple[int, ...]) -> None:
    """A model without a bucket could run nothing."""
    with pytest.raises(ValueError, match="Expected at least one positive bucket"):
        load(weights, manifest, buckets)
