"""Run a network under training over many tiles at once."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.architecture import FEATURES_LAYER, LOGITS_LAYER

#: From inputs (n, height, width, 3), uint8, to logits (n, classes), float32.
Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
#: The same, to logits and pooled features (n, features).
Outputter = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


def build_forward(network: Any, batch_size: int = 64) -> Forward:
    """Return a function that always uses the network's weights of the moment."""
    trunk = keras.Model(network.inputs, network.get_layer(LOGITS_LAYER).output)
    compiled = _compile(trunk)

    def forward(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not len(inputs):  # TensorFlow takes no empty batch
            return np.empty((0, trunk.output_shape[-1]), np.float32)
        starts = range(0, len(inputs), batch_size)
        return np.concatenate([compiled(tf.constant(inputs[start : start + batch_size])) for start in starts])

    return forward


def build_outputs(network: Any, batch_size: int = 64) -> Outputter:
    """Return a function from one tile at least to logits and pooled features."""
    layers = [network.get_layer(name).output for name in (LOGITS_LAYER, FEATURES_LAYER)]
    compiled = _compile(keras.Model(network.inputs, layers))

    def outputs(inputs: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        starts = range(0, len(inputs), batch_size)
        parts = [compiled(tf.constant(inputs[start : start + batch_size])) for start in starts]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    return outputs


def _compile(trunk: Any) -> Callable[[Any], Any]:
    """Trace once for batches of every size: the last one is smaller than the others."""
    signature = [tf.TensorSpec(trunk.input_shape, tf.uint8)]
    compiled: Callable[[Any], Any] = tf.function(
        lambda batch: trunk(tf.cast(batch, tf.float32), training=False), signature, autograph=False
    )
    return compiled
