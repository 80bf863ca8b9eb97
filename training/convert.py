"""Add the same network for ONNX Runtime and for MNN to a version's folder, if they give the same answers."""

import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from shared.errors import InvalidModel
from shared.manifest import MANIFEST_NAME, Manifest, digest_of_file, parse_manifest
from training.errors import TrainingError
from training.reference import check_backend, load_reference
from training.space_to_depth import fold_stems
from worker.engine.calibration import calibrate
from worker.engine.golden import check_golden
from worker.engine.mnn_predictor import INPUT_NAME, OUTPUT_NAMES, MnnPredictor
from worker.engine.onnx_predictor import OnnxPredictor

ONNX_NAME: Final = "model.onnx"
MNN_NAME: Final = "model.mnn"
#: Largest difference of a probability, and of a feature as a share of the largest one, on noise, which no
#: training has seen: all compute in float32.
MOST_DIFFERENCE: Final = 1e-4
_NOISE_IMAGES: Final = 16


def add_converted(folder: Path) -> Manifest:
    """Convert the version in `folder`, prove the copies, and list them in the manifest; returns that.

    Copies that were there are made anew. Do this before the version is published to a bucket: there, versions
    never change.

    Raises:
        TrainingError: if the network cannot be converted or a copy answers otherwise, or Keras does not run
            on TensorFlow; nothing is changed.
        InvalidModel: if the folder holds no whole version.
    """
    check_backend()
    manifest = parse_manifest(_read(folder / MANIFEST_NAME))
    truth = load_reference(folder / manifest.weights, manifest, (_NOISE_IMAGES,))
    with TemporaryDirectory(dir=folder, prefix=".unproven-") as unproven:
        for_onnx, for_mnn = Path(unproven) / ONNX_NAME, Path(unproven) / MNN_NAME
        _export(folder / manifest.weights, manifest, for_onnx)
        _convert_to_mnn(for_onnx, for_mnn)
        _prove(OnnxPredictor(for_onnx, manifest, threads=1), truth, manifest, folder)
        _prove(MnnPredictor(for_mnn, manifest, threads=1), truth, manifest, folder)
        listed = _listing(manifest, (for_onnx, for_mnn))
        described = Path(unproven) / MANIFEST_NAME
        described.write_text(listed.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")
        # All that needs room is written by now. The manifest comes last: until then, this can be done again.
        for path in (for_onnx, for_mnn, described):
            path.replace(folder / path.name)
    return listed


def differences(one: Any, other: Any, batch: NDArray[np.uint8], temperature: float) -> tuple[float, float]:
    """Return how far two predictors differ: in a probability, and in a feature over the largest one."""
    (logits, features), (true_logits, true_features) = (item.predict(batch) for item in (one, other))
    off = np.abs(calibrate(logits, temperature) - calibrate(true_logits, temperature)).max()
    features_off = np.abs(features - true_features).max() / max(float(np.abs(true_features).max()), 1e-9)
    return float(off), float(features_off)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidModel(f"Expected {path.name} in the version's folder {path.parent}.") from error


def _export(weights: Path, manifest: Manifest, path: Path) -> None:
    network = keras.models.load_model(weights, compile=False)
    names = (manifest.logits_layer, manifest.features_layer)
    trunk = keras.Model(network.inputs, [network.get_layer(name).output for name in names])
    trunk([np.zeros((1, *network.input_shape[1:]), np.float32)])  # Keras exports only what was called once
    with warnings.catch_warnings():
        # Keras looks for names that NumPy 2 has not, to put them back for tf2onnx.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            trunk.export(path, format="onnx", verbose=False)
        except Exception as error:  # a layer that tf2onnx does not know raises anything
            raise TrainingError(f"Expected a network that can be converted: {error}") from error
    _name_ends(path)


def _name_ends(path: Path) -> None:
    """Call input and outputs what a predictor looks for, in the order in which they are."""
    network = onnx.load(path)
    (given,) = network.graph.input
    names = dict(zip((end.name for end in network.graph.output), OUTPUT_NAMES, strict=True))
    names[given.name] = INPUT_NAME
    for node in network.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for end in (given, *network.graph.output):
        end.name = names[end.name]
    onnx.save(network, path)


def _convert_to_mnn(source: Path, path: Path) -> None:
    network, folded = onnx.load(source), path.with_suffix(".folded.onnx")
    fold_stems(network)
    onnx.save(network, folded)
    # By the converter itself: its console script reports to MNN's maker, and installs what it needs to do so.
    program = "import sys, _tools; _tools.mnnconvert(sys.argv)"
    options = ["-f", "ONNX", "--modelFile", str(folded), "--MNNModel", str(path), "--bizCode", "histoqueue"]
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", program, *options], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not path.is_file():
        said = (done.stdout + done.stderr).strip().splitlines()
        raise TrainingError(f"Expected a network that MNN can convert. It said: {' / '.join(said[-3:])}")


def _prove(copy: Any, truth: Any, manifest: Manifest, folder: Path) -> None:
    """Compare the copy with TensorFlow on noise, and with the golden tiles' published answers."""
    shape = (_NOISE_IMAGES, manifest.input.height, manifest.input.width, 3)
    noise = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    found = differences(copy, truth, noise, manifest.temperature)
    if not all(difference <= MOST_DIFFERENCE for difference in found):  # NaN is not
        raise TrainingError(
            f"Expected a converted network that differs by at most {MOST_DIFFERENCE}. Received: {found}"
        )
    try:
        check_golden(copy, manifest, folder)
    except InvalidModel as error:
        raise TrainingError(f"Expected the converted network to pass the golden tiles. {error}") from error


def _listing(manifest: Manifest, paths: Iterable[Path]) -> Manifest:
    digests = {path.name: digest_of_file(path) for path in paths}
    others = [file for file in manifest.files if file.name not in digests]
    files = sorted([*others, *digests.values()], key=lambda file: file.name)
    return manifest.model_copy(update={"onnx": ONNX_NAME, "mnn": MNN_NAME, "files": tuple(files)})
