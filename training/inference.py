"""Run a network under training over many tiles at once."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.architecture import LOGITS_LAYER

#: From inputs (n, height, width, 3), uint8, to logits (n, classes), float32.
Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def build_forward(network: Any, batch_size: int = 64) -> Forward:
    """Return a function that always uses the network's weights of the moment."""
    trunk = keras.Model(network.inputs, network.get_layer(LOGITS_LAYER).output)
    compiled = tf.function(lambda batch: trunk(tf.cast(batch, tf.float32), training=False), autograph=False)

    def forward(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        starts = range(0, len(inputs), batch_size)
        return np.concatenate([compiled(tf.constant(inputs[start : start + batch_size])) for start in starts])

    return forward
