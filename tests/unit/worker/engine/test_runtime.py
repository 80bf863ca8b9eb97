"""What runs the network: the bundled model in every runtime, and what happens where one does not fit."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ops.prepare import newest_bundled_model
from shared.errors import InvalidModel
from shared.manifest import MANIFEST_NAME, Manifest, parse_manifest
from worker.engine import runtime as runtimes
from worker.engine.mnn_predictor import MnnPredictor
from worker.engine.runtime import Order, load
from worker.gpu import NoGpu

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
pytest.importorskip("tensorflow")
pytest.importorskip("onnxruntime")
pytest.importorskip("MNN")

FAST = ("mnn", "onnxruntime")
FILES = {"mnn": "model.mnn", "onnxruntime": "model.onnx"}
NAMES = {"mnn": "MNN", "onnxruntime": "ONNX Runtime"}


def manifest_of(folder: Path) -> Manifest:
    return parse_manifest((folder / MANIFEST_NAME).read_bytes())


def order(folder: Path, **changes: object) -> Order:
    manifest = manifest_of(folder).model_copy(update=changes)
    return Order(folder, manifest, threads=1, buckets=(1, 4))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled version, converted here."""
    folder = tmp_path_factory.mktemp("converted") / "version"
    shutil.copytree(newest_bundled_model(), folder)
    from training.convert import add_converted  # noqa: PLC0415 - imports TensorFlow

    add_converted(folder)
    return folder


def noise(manifest: Manifest, count: int) -> Any:
    shape = (count, manifest.input.height, manifest.input.width, 3)
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("wanted", FAST)
def test_every_runtime_gives_the_same_logits_and_features(converted: Path, wanted: str) -> None:
    """On noise, for every batch size: alone, odd, and over the largest. Winograd's sums round more."""
    truth, fast = load("tensorflow", order(converted)), load(wanted, order(converted))
    assert (truth.runtime, fast.runtime, fast.warning) == ("tensorflow", wanted, None)
    for count in (1, 3, 21):
        batch = noise(manifest_of(converted), count)
        for expected, received in zip(
            truth.predictor.predict(batch), fast.predictor.predict(batch), strict=True
        ):
            assert received.dtype == np.float32
            np.testing.assert_allclose(received, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wanted", FAST)
def test_an_answer_does_not_depend_on_its_batch_mates(converted: Path, wanted: str) -> None:
    """Alone or among others: the same logits within 1e-5."""
    fast = load(wanted, order(converted)).predictor
    batch = noise(manifest_of(converted), 18)
    alone = np.concatenate([fast.predict(image[np.newaxis])[0] for image in batch])
    np.testing.assert_allclose(fast.predict(batch)[0], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_of_onnx_runtime_share_one_image_and_divide_several(converted: Path, threads: int) -> None:
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


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_mnn_gives_each_thread_a_network_and_an_image_at_a_time(converted: Path, threads: int) -> None:
    """Every row stays with its image, whichever network computes it and whatever that one computed before."""
    fast = load("mnn", replace(order(converted), threads=threads)).predictor
    batch = noise(manifest_of(converted), 11)
    expected = [fast.predict(image[np.newaxis]) for image in batch]
    for _ in range(3):
        logits, features = fast.predict(batch)
        np.testing.assert_array_equal(logits, np.concatenate([one for one, _ in expected]))
        np.testing.assert_array_equal(features, np.concatenate([one for _, one in expected]))
    assert fast._free.qsize() == threads


def test_mnn_says_that_it_could_not_run_the_network(converted: Path) -> None:
    """By its status; the network that failed can be asked again."""
    fast = load("mnn", order(converted)).predictor
    (network,) = fast._networks
    run = network._interpreter

    class Failing:
        def runSession(self, session: Any) -> int:  # noqa: N802 - MNN's name
            return 3

    network._interpreter = Failing()
    with pytest.raises(RuntimeError, match="It gave status 3"):
        fast.predict(noise(manifest_of(converted), 2))
    network._interpreter = run
    assert fast.predict(noise(manifest_of(converted), 2))[0].shape == (2, 3)


def test_mnn_prints_nothing(converted: Path) -> None:
    """Standard output is for the logs' lines; what others print there stays, before and after."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from shared.manifest import parse_manifest\n"
        "from worker.engine.mnn_predictor import MnnPredictor\n"
        "folder = Path(sys.argv[1])\n"
        "manifest = parse_manifest((folder / 'manifest.json').read_bytes())\n"
        "print('before')\n"
        "MnnPredictor(folder / manifest.mnn, manifest, threads=2).warm_up()\n"
        "print('after')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(converted)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("before\nafter\n", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": {"width": 224, "height": 112}}, r"Expected image \(1, 112, 224, 3\)"),
        ({"classes": 2}, "Expected 2 classes"),
    ],
)
def test_a_network_for_mnn_of_another_form_is_refused(
    converted: Path, changes: dict[str, Any], said: str
) -> None:
    """Another input, or another number of classes: before anything is asked of it."""
    manifest = manifest_of(converted)
    if "input" in changes:
        changed = manifest.model_copy(update={"input": manifest.input.model_copy(update=changes["input"])})
    else:
        changed = manifest.model_copy(update={"classes": manifest.classes[: changes["classes"]]})
    with pytest.raises(InvalidModel, match=said):
        MnnPredictor(converted / "model.mnn", changed, threads=1)


def test_auto_takes_the_fastest_converted_network_that_there_is(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And TensorFlow without a word where there is none, or where a GPU waits for it."""
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: False)
    assert load("auto", order(converted)).runtime == "mnn"
    older = load("auto", order(converted, mnn=None))
    assert (older.runtime, older.warning) == ("onnxruntime", None)
    plain = load("auto", order(converted, onnx=None, mnn=None))
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


@pytest.mark.parametrize("wanted", FAST)
def test_a_version_without_a_converted_network_falls_back_with_a_warning(
    converted: Path, wanted: str
) -> None:
    """Where its runtime was asked for by name."""
    loaded = load(wanted, order(converted, onnx=None, mnn=None))
    assert loaded.runtime == "tensorflow"
    assert loaded.warning == f"This version was published without a network for {NAMES[wanted]}."


@pytest.mark.parametrize("wanted", FAST)
def test_a_machine_without_the_runtime_falls_back_with_a_warning(
    converted: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    """It is no reason not to serve."""
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    loaded = load(wanted, order(converted))
    assert (loaded.runtime, loaded.warning) == ("tensorflow", f"{NAMES[wanted]} is not installed.")


@pytest.mark.parametrize("wanted", FAST)
def test_a_network_that_answers_otherwise_is_refused(converted: Path, tmp_path: Path, wanted: str) -> None:
    """Its golden tiles tell; TensorFlow serves, and the warning says why."""
    folder = with_two_classes_swapped(converted, tmp_path, [wanted])
    loaded = load(wanted, order(folder))
    assert loaded.runtime == "tensorflow"
    assert loaded.warning is not None
    assert f"{wanted} does not answer" in loaded.warning
    assert "Expected probabilities" in loaded.warning


@pytest.mark.parametrize(
    ("wrong", "serves"), [(("mnn",), "onnxruntime"), (FAST, "tensorflow"), (("onnxruntime",), "mnn")]
)
def test_auto_goes_on_to_the_next_runtime(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, ...], serves: str
) -> None:
    """With a word about each that answered otherwise, in the order in which they were tried."""
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: False)
    loaded = load("auto", order(with_two_classes_swapped(converted, tmp_path, wrong)))
    assert loaded.runtime == serves
    tried = [
        name for name in FAST if name in wrong and FAST.index(name) < [*FAST, "tensorflow"].index(serves)
    ]
    said = (loaded.warning or "").split("; ") if tried else []
    assert [line.split()[0] for line in said] == tried
    assert all("Expected probabilities" in line for line in said)


@pytest.mark.parametrize("wanted", ["auto", "mnn"])
def test_a_library_that_asks_for_an_executable_stack_is_not_loaded(
    converted: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    """The engine decodes what strangers send; the warning says what mends it."""
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: False)
    monkeypatch.setattr(runtimes, "asks_for_executable_stack", lambda library: "_mnncengine" in library.name)
    loaded = load(wanted, order(converted))
    assert loaded.runtime == ("onnxruntime" if wanted == "auto" else "tensorflow")
    assert loaded.warning == (
        "MNN asks for an executable stack: python worker/engine/mnn_library.py mends it."
    )


def test_a_library_that_cannot_be_loaded_ends_no_engine(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system is too new or too old for it: the next runtime serves, with a warning."""
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: False)

    def refuse(*_: object) -> None:
        raise ImportError("libmissing.so: cannot open shared object file")

    monkeypatch.setattr("worker.engine.mnn_predictor.MnnPredictor", refuse)
    loaded = load("auto", order(converted))
    assert (loaded.runtime, loaded.warning) == (
        "onnxruntime",
        "MNN cannot be loaded: libmissing.so: cannot open shared object file",
    )
    monkeypatch.setitem(sys.modules, "worker.engine.onnx_predictor", None)
    loaded = load("auto", order(converted))
    assert loaded.runtime == "tensorflow"
    assert "ONNX Runtime cannot be loaded" in (loaded.warning or "")


def test_a_runtime_that_fails_at_work_ends_no_engine(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was loaded, and something of it does not work here: the next one serves, with a warning."""
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: False)

    def fail(*_: object) -> None:
        raise RuntimeError("MNN could not run the network: status 3")

    monkeypatch.setattr("worker.engine.mnn_predictor.MnnPredictor.warm_up", fail)
    loaded = load("auto", order(converted))
    assert loaded.runtime == "onnxruntime"
    assert loaded.warning == "mnn fails: RuntimeError: MNN could not run the network: status 3"


@pytest.mark.parametrize("wanted", FAST)
def test_a_damaged_network_is_refused(converted: Path, tmp_path: Path, wanted: str) -> None:
    """It never stops a worker that has the truth beside it."""
    folder = tmp_path / "version"
    shutil.copytree(converted, folder)
    (folder / FILES[wanted]).write_bytes(b"no network")
    loaded = load(wanted, order(folder))
    assert loaded.runtime == "tensorflow"
    assert loaded.warning is not None
    assert re.search("Expected a loadable (ONNX|MNN) network", loaded.warning)


def test_a_truth_that_fails_its_golden_tiles_is_no_fallback(converted: Path) -> None:
    """Nothing is served by a model that is not the one that was published."""
    golden = manifest_of(converted).golden
    moved = tuple(tile.model_copy(update={"probabilities": tile.probabilities[::-1]}) for tile in golden)
    with pytest.raises(InvalidModel, match="Expected probabilities"):
        load("onnxruntime", order(converted, golden=moved))


@pytest.mark.parametrize("wanted", FAST)
def test_one_runtime_is_loaded_alone(converted: Path, wanted: str) -> None:
    """Which is what saves half a gigabyte and seconds: the whole engine, in a fresh process."""
    options = {"folder": str(converted), "threads": 1, "max_batch_size": 4}
    options |= {"runtime": wanted, "needs_gpu": False}
    others = [
        "tensorflow",
        "keras",
        *(package for package in ("MNN", "onnxruntime") if package.lower() != wanted),
    ]
    program = (
        "import sys\n"
        "from worker.engine.__main__ import _load\n"
        f"loaded = _load({options!r})[1]\n"
        f"print(loaded.runtime, [name for name in {others} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == f"{wanted} []"


@pytest.mark.parametrize("wanted", FAST)
@pytest.mark.parametrize("count", [0, 2])
def test_a_batch_of_another_form_is_refused(converted: Path, count: int, wanted: str) -> None:
    """Empty, or of another size than the model's input."""
    fast = load(wanted, order(converted)).predictor
    with pytest.raises(ValueError, match="Expected uint8"):
        fast.predict(np.zeros((count, 7 if count else 8, 7, 3), np.uint8))


def with_two_classes_swapped(converted: Path, place: Path, wrong: Sequence[str]) -> Path:
    """Return a copy of the version whose networks for these runtimes have another class order."""
    from training.convert import _convert_to_mnn  # noqa: PLC0415 - imports TensorFlow

    folder = place / "version"
    shutil.copytree(converted, folder)
    swapped = place / "swapped.onnx"
    shutil.copyfile(folder / "model.onnx", swapped)
    swap_two_classes(swapped)
    if "mnn" in wrong:
        _convert_to_mnn(swapped, folder / "model.mnn")
    if "onnxruntime" in wrong:
        shutil.copyfile(swapped, folder / "model.onnx")
    return folder


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
