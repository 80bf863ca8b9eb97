"""Build the network: blocks of convolutions, global pooling, a small dense head.

Normalisation is a layer of the model, so serving cannot disagree with training; the logits are a layer
before the softmax, so calibration works on what the loss was computed on.
"""

import math
from typing import Any, Final

import keras
from keras import layers

from shared.manifest import InputSpec
from training.experiment import NetworkPlan

FEATURES_LAYER: Final = "features"
LOGITS_LAYER: Final = "logits"


def build_model(spec: InputSpec, plan: NetworkPlan, class_count: int) -> Any:
    """Return a `keras.Model` from images (n, height, width, 3), values 0 to 255, to probabilities.

    Raises:
        ValueError: if filters and convolutions do not name the same number of blocks.
    """
    if len(plan.filters) != len(plan.convolutions):
        raise ValueError(
            f"Expected one count of convolutions per block. Received: {plan.filters}, {plan.convolutions}"
        )
    image = keras.Input((spec.height, spec.width, 3), name="image")
    values = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalise")(image)
    if plan.stem_filters:
        values = _convolution(values, plan.stem_filters, "stem", size=5, stride=2)
        values = layers.MaxPooling2D(name="stem_pool")(values)
    ends = []
    for number, (filters, count) in enumerate(zip(plan.filters, plan.convolutions, strict=True)):
        if number:
            values = layers.MaxPooling2D(name=f"block{number}_pool")(values)
        for step in range(count):
            values = _convolution(values, filters, f"block{number + 1}_conv{step + 1}")
        ends.append(values)
    features = _pool(ends[-plan.pooled_blocks :])
    logits = layers.Dense(class_count, name=LOGITS_LAYER)(_head(features, plan))
    return keras.Model(image, layers.Softmax(name="probabilities")(logits), name="lung_cnn")


def count_multiply_accumulates(model: Any) -> int:
    """Return the multiply-accumulates of one image through the convolutions and dense layers."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            total += math.prod(layer.kernel.shape) * layer.output.shape[1] * layer.output.shape[2]
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total


def _pool(ends: list[Any]) -> Any:
    """Average each block's last maps; the coarse ones see tissue, the finer ones nuclei."""
    if len(ends) == 1:
        return layers.GlobalAveragePooling2D(name=FEATURES_LAYER)(ends[0])
    pooled = [
        layers.GlobalAveragePooling2D(name=f"pooled{number + 1}")(end) for number, end in enumerate(ends)
    ]
    return layers.Concatenate(name=FEATURES_LAYER)(pooled)


def _convolution(values: Any, filters: int, name: str, size: int = 3, stride: int = 1) -> Any:
    values = layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(values)
    values = layers.BatchNormalization(momentum=0.98, name=f"{name}_norm")(values)
    return layers.ReLU(name=f"{name}_relu")(values)


def _head(features: Any, plan: NetworkPlan) -> Any:
    values = layers.Dense(plan.dense_units, use_bias=False, name="head_dense")(features)
    values = layers.BatchNormalization(momentum=0.98, name="head_norm")(values)
    values = layers.ReLU(name="head_relu")(values)
    return layers.Dropout(plan.dropout, name="head_dropout")(values)
