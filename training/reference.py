"""Load a version as a worker does: by TensorFlow, whatever trained its weights."""

from pathlib import Path

import keras

from shared.manifest import Manifest
from training.errors import TrainingError
from worker.engine.pipeline import Model


def check_backend() -> None:
    """Refuse what must answer as the workers do where Keras runs on something else.

    Raises:
        TrainingError: if Keras's backend is not TensorFlow.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise TrainingError(
            "Expected KERAS_BACKEND=tensorflow where a version is made, converted or scored: that is what"
            f" serves it. Received: {backend}. A run that {backend} trained can be published by TensorFlow."
        )


def load_reference(weights: Path, manifest: Manifest, buckets: tuple[int, ...] = (16,)) -> Model:
    """Return the worker's own predictor for these weights, on one thread.

    Raises:
        TrainingError: if Keras's backend is not TensorFlow.
        InvalidModel: if the weights are not what the manifest describes.
    """
    check_backend()
    from worker.engine.predictor import Predictor  # noqa: PLC0415 - training may do without TensorFlow

    return Predictor(weights, manifest, threads=1, buckets=buckets)
