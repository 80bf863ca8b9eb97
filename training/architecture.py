"""Build the network: blocks of convolutions, global pooling, a small dense head; or a committee of such.

Normalisation is a layer of the model, so serving cannot disagree with training; the logits are a layer
before the softmax, so calibration works on what the loss was computed on. The members of a committee share
nothing but the image, and its logits are the mean of theirs (Lakshminarayanan et al. 2017,
arXiv:1612.01474, who average probabilities).
"""

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
    members = [_trunk(values, plan, _prefix(plan, number)) for number in range(plan.members)]
    features = layers.Concatenate(name=FEATURES_LAYER)([end for ends in members for end in ends])
    votes, start = [], 0
    for number, ends in enumerate(members):
        width = sum(end.shape[-1] for end in ends)
        head = _head(features[:, start : start + width], plan, _prefix(plan, number))
        votes.append(layers.Dense(class_count, name=_logits_name(plan, number))(head))
        start += width
    logits = layers.Average(name=LOGITS_LAYER)(votes) if plan.members > 1 else votes[0]
    return keras.Model(image, layers.Softmax(name="probabilities")(logits), name="lung_cnn")


def member_logits(network: Any, plan: NetworkPlan) -> dict[str, Any]:
    """Return the outputs, each of shape (n, classes), that a loss is computed on: one per member, by name."""
    names = [_logits_name(plan, number) for number in range(plan.members)]
    return {name: network.get_layer(name).output for name in names}


def count_multiply_accumulates(model: Any) -> int:
    """Return the multiply-accumulates of one image through the convolutions and dense layers."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            total += int(layer.kernel.shape.num_elements()) * layer.output.shape[1] * layer.output.shape[2]
        elif isinstance(layer, layers.Dense):
            total += int(layer.kernel.shape.num_elements())
    return total


def _trunk(values: Any, plan: NetworkPlan, prefix: str) -> list[Any]:
    """Average each of the last blocks' maps; the coarse ones see tissue, the finer ones nuclei."""
    if plan.stem_filters:
        values = _convolution(values, plan.stem_filters, f"{prefix}stem", size=5, stride=2)
        values = layers.MaxPooling2D(name=f"{prefix}stem_pool")(values)
    ends = []
    for number, (filters, count) in enumerate(zip(plan.filters, plan.convolutions, strict=True)):
        if number:
            values = layers.MaxPooling2D(name=f"{prefix}block{number}_pool")(values)
        for step in range(count):
            values = _convolution(values, filters, f"{prefix}block{number + 1}_conv{step + 1}")
        ends.append(layers.GlobalAveragePooling2D(name=f"{prefix}pooled{number + 1}")(values))
    return ends[-plan.pooled_blocks :]


def _prefix(plan: NetworkPlan, member: int) -> str:
    return f"member{member + 1}_" if plan.members > 1 else ""


def _logits_name(plan: NetworkPlan, member: int) -> str:
    return f"{_prefix(plan, member)}{LOGITS_LAYER}"


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


def _head(features: Any, plan: NetworkPlan, prefix: str) -> Any:
    values = layers.Dense(plan.dense_units, use_bias=False, name=f"{prefix}head_dense")(features)
    values = layers.BatchNormalization(momentum=0.98, name=f"{prefix}head_norm")(values)
    values = layers.ReLU(name=f"{prefix}head_relu")(values)
    return layers.Dropout(plan.dropout, name=f"{prefix}head_dropout")(values)
