"""Add the same network for ONNX Runtime to a version's folder, if it gives the same answers."""

import hashlib
import warnings
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidModel
from shared.manifest import MANIFEST_NAME, FileDigest, Manifest, parse_manifest
from training.errors import TrainingError
from training.reference import check_backend, load_reference
from worker.engine.calibration import calibrate
from worker.engine.golden import check_golden
from worker.engine.onnx_predictor import OnnxPredictor

ONNX_NAME: Final = "model.onnx"
#: Largest difference of a probability, and of a feature as a share of the largest one, on noise, which no
#: training has seen: both compute in float32.
MOST_DIFFERENCE: Final = 1e-4
_NOISE_IMAGES: Final = 16


def add_onnx(folder: Path) -> Manifest:
    """Convert the version in `folder`, prove the copy, and list it in the manifest; returns that.

    A copy that was there is made anew. Do this before the version is published to a bucket: there, versions
    never change.

    Raises:
        TrainingError: if the network cannot be converted or the copy answers otherwise, or Keras does not run
            on TensorFlow; nothing is changed.
        InvalidModel: if the folder holds no whole version.
    """
    check_backend()
    manifest = parse_manifest(_read(folder / MANIFEST_NAME))
    unproven = folder / f".{ONNX_NAME}.unproven"
    try:
        _export(folder / manifest.weights, manifest, unproven)
        _prove(unproven, manifest, folder)
        listed = _listing(manifest, unproven)
        unproven.replace(folder / ONNX_NAME)
    finally:
        unproven.unlink(missing_ok=True)
    text = listed.model_dump_json(indent=1) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8", newline="\n")
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


def _prove(path: Path, manifest: Manifest, folder: Path) -> None:
    """Compare the copy with TensorFlow on noise, and with the golden tiles' published answers."""
    copy = OnnxPredictor(path, manifest, threads=1)
    truth = load_reference(folder / manifest.weights, manifest, (_NOISE_IMAGES,))
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


def _listing(manifest: Manifest, path: Path) -> Manifest:
    data = path.read_bytes()
    digest = FileDigest(name=ONNX_NAME, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    others = [file for file in manifest.files if file.name != ONNX_NAME]
    files = sorted([*others, digest], key=lambda file: file.name)
    return manifest.model_copy(update={"onnx": ONNX_NAME, "files": tuple(files)})
