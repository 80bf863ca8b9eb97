"""Run a network under training over many tiles at once."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.architecture import FEATURES_LAYER, LOGITS_LAYER

#: From inputs (n, height, width, 3), uint8, to logits (n, classes), float32.
Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
#: The same, to logits and pooled features (n, features).
Outputter = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


def build_forward(network: Any, batch_size: int = 64) -> Forward:
    """Return a function that always uses the network's weights of the moment."""
    trunk = keras.Model(network.inputs, network.get_layer(LOGITS_LAYER).output)

    def forward(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not len(inputs):  # no backend takes an empty batch
            return np.empty((0, trunk.output_shape[-1]), np.float32)
        return np.concatenate([_run(trunk, batch, batch_size)[0] for batch in _batches(inputs, batch_size)])

    return forward


def build_outputs(network: Any, batch_size: int = 64) -> Outputter:
    """Return a function from one tile at least to logits and pooled features."""
    layers = [network.get_layer(name).output for name in (LOGITS_LAYER, FEATURES_LAYER)]
    trunk = keras.Model(network.inputs, layers)

    def outputs(inputs: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        parts = [_run(trunk, batch, batch_size) for batch in _batches(inputs, batch_size)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    return outputs


def _batches(inputs: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


def _run(trunk: Any, batch: NDArray[np.uint8], size: int) -> list[NDArray[np.float32]]:
    """Return the outputs of a batch, filled up to its full size: another one would be compiled anew."""
    padding = np.zeros((size - len(batch), *batch.shape[1:]), np.uint8)
    with _full_precision():
        outputs = trunk.predict_on_batch(np.concatenate([batch, padding]))
    return [output[: len(batch)] for output in keras.tree.flatten(outputs)]


def _full_precision() -> AbstractContextManager[Any]:
    """Keep a graphics card from shorter floats (TF32) under JAX: figures are measured with what is served."""
    if keras.backend.backend() != "jax":
        return nullcontext()
    import jax  # noqa: PLC0415 - absent where TensorFlow trains

    return jax.default_matmul_precision("float32")  # type: ignore[no-any-return]
