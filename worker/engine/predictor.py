"""Run the network by TensorFlow: the only serving file that imports it, in the engine process alone."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidModel
from shared.manifest import Manifest
from worker.engine.batches import Outputs, check_batch

# Read by TensorFlow and Keras while they are imported: no chatter on stderr, and this backend alone.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf

#: Micro-batch sizes that are traced once; anything between is padded to the next.
BUCKETS: Final = (1, 2, 4, 8, 16)

#: Weights hardly shrink and Keras stores them as they are; a description of layers shrinks some ten times.
MOST_UNPACKED: Final = 20

# A card's shorter floats (TF32) keep about three digits, and golden tiles are compared to the third.
tf.config.experimental.enable_tensor_float_32_execution(False)


class Predictor:
    """One loaded model version.

    Trust in the archive comes from its digest, which the model cache has checked before: Keras' safe mode is
    a second fence and not a boundary.
    """

    def __init__(
        self, weights_path: Path, manifest: Manifest, threads: int, buckets: tuple[int, ...] = BUCKETS
    ) -> None:
        """Load the archive and check it against its manifest.

        Raises:
            InvalidModel: if it cannot be loaded, lacks a named layer, or has another input or class count.
            ValueError: if there is no bucket.
        """
        if not buckets or min(buckets) < 1:
            raise ValueError(f"Expected at least one positive bucket. Received: {buckets}")
        _use_threads(threads)
        self._buckets = tuple(sorted(buckets))
        self._shape = (manifest.input.height, manifest.input.width, 3)
        network = _load(weights_path)
        _check_shapes(network, manifest)
        self._forward = _compile(network, manifest)

    def warm_up(self) -> None:
        """Trace and run every bucket once, so that no job pays for it."""
        for size in self._buckets:
            self._run(np.zeros((size, *self._shape), np.uint8))

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return logits of shape (n, classes) and pooled features of shape (n, features), both float32.

        `batch` has shape (n, height, width, 3), values 0 to 255. It is padded to the next bucket and split
        where it is over the largest; a row never depends on its neighbours.

        Raises:
            ValueError: if the batch has another shape or type.
        """
        check_batch(batch, self._shape, fewest=0)
        largest = self._buckets[-1]
        starts = range(0, max(len(batch), 1), largest)
        parts = [self._run_padded(batch[start : start + largest]) for start in starts]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _run_padded(self, batch: NDArray[np.uint8]) -> Outputs:
        size = next(bucket for bucket in self._buckets if bucket >= len(batch))
        padding = np.zeros((size - len(batch), *self._shape), np.uint8)
        logits, features = self._run(np.concatenate([batch, padding]))
        return logits[: len(batch)], features[: len(batch)]

    def _run(self, batch: NDArray[np.uint8]) -> Outputs:
        logits, features = self._forward(tf.constant(batch))
        return logits.numpy(), features.numpy()


def usable_gpus() -> int:
    """Return how many graphics cards TensorFlow can use in this process."""
    return len(tf.config.list_physical_devices("GPU"))


def _use_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        return  # TensorFlow runs already (a second model in this process): its threads cannot change any more


def _load(weights_path: Path) -> Any:
    if weights_path.suffix != ".keras":  # Keras ignores its safe mode for the older HDF5 files
        raise InvalidModel(f"Expected weights in a .keras archive. Received: {weights_path.name}")
    _check_unpacked_size(weights_path)
    try:
        return keras.models.load_model(weights_path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged archive raises anything
        raise InvalidModel(f"Expected a loadable Keras archive. Received: {weights_path.name}") from error


def _check_unpacked_size(archive_path: Path) -> None:
    """Keras unpacks a member whole: a bomb of a few megabytes would fill the memory before it is refused."""
    try:
        with zipfile.ZipFile(archive_path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        packed = archive_path.stat().st_size
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidModel(f"Expected a loadable Keras archive. Received: {archive_path.name}") from error
    if unpacked > MOST_UNPACKED * packed:
        raise InvalidModel(
            f"Expected an archive that unpacks to at most {MOST_UNPACKED} times its size."
            f" Received: {unpacked} bytes in {packed}"
        )


def _check_shapes(network: Any, manifest: Manifest) -> None:
    expected = (None, manifest.input.height, manifest.input.width, 3)
    if network.input_shape != expected:
        raise InvalidModel(f"Expected a model input of shape {expected}. Received: {network.input_shape}")
    shape = _layer(network, manifest.logits_layer).output.shape
    if tuple(shape) != (None, len(manifest.classes)):
        raise InvalidModel(f"Expected {len(manifest.classes)} classes. Received logits of shape {shape}")
    statistics, width = manifest.gates.features, _layer(network, manifest.features_layer).output.shape[-1]
    if statistics and len(statistics.projection[0]) != width:
        raise InvalidModel(
            f"Expected statistics of {width} features. Received: {len(statistics.projection[0])}"
        )


def _layer(network: Any, name: str) -> Any:
    try:
        return network.get_layer(name)
    except ValueError as error:
        known = [layer.name for layer in network.layers]
        raise InvalidModel(f"Expected a layer named {name}. Received: {known}") from error


def _compile(network: Any, manifest: Manifest) -> Callable[[Any], tuple[Any, Any]]:
    names = (manifest.logits_layer, manifest.features_layer)
    trunk = keras.Model(network.inputs, [_layer(network, name).output for name in names])

    def forward(batch: Any) -> tuple[Any, Any]:
        logits, features = trunk(tf.cast(batch, tf.float32), training=False)
        return logits, features

    compiled: Callable[[Any], tuple[Any, Any]] = tf.function(forward)
    return compiled
