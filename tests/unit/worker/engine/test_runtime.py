"""What runs the network: the bundled model in both runtimes, and what happens where one does not fit."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ops.prepare import newest_bundled_model
from shared.errors import InvalidModel
from shared.manifest import MANIFEST_NAME, Manifest, parse_manifest
from worker.engine import runtime as runtimes
from worker.engine.runtime import Order, load
from worker.gpu import NoGpu

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
pytest.importorskip("tensorflow")
pytest.importorskip("onnxruntime")


def manifest_of(folder: Path) -> Manifest:
    return parse_manifest((folder / MANIFEST_NAME).read_bytes())


def order(folder: Path, **changes: object) -> Order:
    manifest = manifest_of(folder).model_copy(update=changes)
    return Order(folder, manifest, threads=1, buckets=(1, 4))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled version with its converted network, made here where it came without."""
    folder = tmp_path_factory.mktemp("converted") / "version"
    shutil.copytree(newest_bundled_model(), folder)
    from training.convert import add_onnx  # noqa: PLC0415 - imports TensorFlow

    add_onnx(folder)
    return folder


def noise(manifest: Manifest, count: int) -> Any:
    shape = (count, manifest.input.height, manifest.input.width, 3)
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


def test_both_runtimes_give_the_same_logits_and_features(converted: Path) -> None:
    """On noise, for every batch size: alone, odd, and over the largest."""
    truth, fast = load("tensorflow", order(converted)), load("onnxruntime", order(converted))
    assert (truth.runtime, fast.runtime, fast.warning) == ("tensorflow", "onnxruntime", None)
    for count in (1, 3, 21):
        batch = noise(manifest_of(converted), count)
        for expected, received in zip(
            truth.predictor.predict(batch), fast.predictor.predict(batch), strict=True
        ):
            assert received.dtype == np.float32
            np.testing.assert_allclose(received, expected, atol=1e-4)


def test_an_answer_does_not_depend_on_its_batch_mates(converted: Path) -> None:
    """Alone or among others: the same logits within 1e-5."""
    fast = load("onnxruntime", order(converted)).predictor
    batch = noise(manifest_of(converted), 18)
    alone = np.concatenate([fast.predict(image[np.newaxis])[0] for image in batch])
    np.testing.assert_allclose(fast.predict(batch)[0], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_one_image_and_divide_several(converted: Path, threads: int) -> None:
    """Every row stays with its image; none is computed twice, and no thread is given too many at once."""
    fast = load("onnxruntime", replace(order(converted), threads=threads)).predictor
    runs: list[tuple[bool, int]] = []
    run = fast._run

    def spy(session: Any, part: Any) -> Any:
        runs.append((session is fast._shared, len(part)))
        return run(session, part)

    fast._run = spy
    batch = noise(manifest_of(converted), 7)
    expected = [fast.predict(image[np.newaxis])[0][0] for image in batch]
    assert runs == [(True, 1)] * 7
    for images in (2, 3, 7):
        runs.clear()
        np.testing.assert_allclose(fast.predict(batch[:images])[0], expected[:images], atol=1e-5, rtol=1e-5)
        assert sum(size for _, size in runs) == images
        assert max(size for _, size in runs) <= 2
        assert len(runs) >= min(images, threads)
        assert threads == 1 or not any(shared for shared, _ in runs)


def test_auto_takes_the_converted_network_where_there_is_one(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And TensorFlow without a word where there is none, or where a GPU waits for it."""
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: False)
    assert load("auto", order(converted)).runtime == "onnxruntime"
    plain = load("auto", order(converted, onnx=None))
    assert (plain.runtime, plain.warning) == ("tensorflow", None)
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: True)
    assert load("auto", order(converted)).runtime == "tensorflow"


@pytest.mark.parametrize("wanted", ["tensorflow", "auto"])
def test_an_order_that_needs_a_gpu_is_not_run_without(
    converted: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    """Neither slowly by TensorFlow nor by a runtime for processors; with a card, TensorFlow takes it."""
    from worker.engine import predictor  # noqa: PLC0415 - imports TensorFlow

    needy = replace(order(converted), needs_gpu=True)
    monkeypatch.setattr(predictor, "usable_gpus", lambda: 0)
    with pytest.raises(NoGpu, match="TensorFlow can use"):
        load(wanted, needy)
    monkeypatch.setattr(predictor, "usable_gpus", lambda: 1)
    assert load(wanted, needy).runtime == "tensorflow"


def test_a_version_without_a_converted_network_falls_back_with_a_warning(converted: Path) -> None:
    """Where ONNX Runtime was asked for by name."""
    loaded = load("onnxruntime", order(converted, onnx=None))
    assert loaded.runtime == "tensorflow"
    assert loaded.warning == "This version was published without a converted network."


def test_a_machine_without_the_runtime_falls_back_with_a_warning(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no reason not to serve."""
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    loaded = load("onnxruntime", order(converted))
    assert (loaded.runtime, loaded.warning) == ("tensorflow", "ONNX Runtime is not installed.")


@pytest.mark.parametrize("wanted", ["onnxruntime", "auto"])
def test_a_network_that_answers_otherwise_is_refused(converted: Path, tmp_path: Path, wanted: str) -> None:
    """Its golden tiles tell; TensorFlow serves, and the warning says why."""
    folder = tmp_path / "version"
    shutil.copytree(converted, folder)
    swap_two_classes(folder / "model.onnx")
    loaded = load(wanted, order(folder))
    assert loaded.runtime == "tensorflow"
    assert loaded.warning is not None
    assert "Expected probabilities" in loaded.warning


def test_a_damaged_network_is_refused(converted: Path, tmp_path: Path) -> None:
    """It never stops a worker that has the truth beside it."""
    folder = tmp_path / "version"
    shutil.copytree(converted, folder)
    (folder / "model.onnx").write_bytes(b"no network")
    loaded = load("onnxruntime", order(folder))
    assert loaded.runtime == "tensorflow"
    assert loaded.warning is not None
    assert "Expected a loadable ONNX network" in loaded.warning


def test_a_truth_that_fails_its_golden_tiles_is_no_fallback(converted: Path) -> None:
    """Nothing is served by a model that is not the one that was published."""
    golden = manifest_of(converted).golden
    moved = tuple(tile.model_copy(update={"probabilities": tile.probabilities[::-1]}) for tile in golden)
    with pytest.raises(InvalidModel, match="Expected probabilities"):
        load("onnxruntime", order(converted, golden=moved))


def test_tensorflow_is_not_loaded_beside_another_runtime(converted: Path) -> None:
    """Which is what saves half a gigabyte and seconds: the whole engine, in a fresh process."""
    options = {"folder": str(converted), "threads": 1, "max_batch_size": 4}
    options |= {"runtime": "onnxruntime", "needs_gpu": False}
    program = (
        "import sys\n"
        "from worker.engine.__main__ import _load\n"
        f"loaded = _load({options!r})[1]\n"
        "print(loaded.runtime, [name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "onnxruntime []"


@pytest.mark.parametrize("count", [0, 2])
def test_a_batch_of_another_form_is_refused(converted: Path, count: int) -> None:
    """Empty, or of another size than the model's input."""
    fast = load("onnxruntime", order(converted)).predictor
    with pytest.raises(ValueError, match="Expected uint8"):
        fast.predict(np.zeros((count, 7 if count else 8, 7, 3), np.uint8))


def swap_two_classes(path: Path) -> None:
    """Exchange the first two columns of the last layer, as a wrong class order would."""
    import onnx  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    network = onnx.load(path)
    changed = 0
    for tensor in network.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 2 and values.shape[1] == 3:
            tensor.CopyFrom(numpy_helper.from_array(values[:, [1, 0, 2]].copy(), tensor.name))
            changed += 1
    assert changed in (1, 2)  # the logits of one expert, or of two
    onnx.save(network, path)
