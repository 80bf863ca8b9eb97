"""Build the network: blocks of convolutions, global pooling, a small dense head; one or two such experts.

Normalisation is a layer of the model, so serving cannot disagree with training; the logits are a layer
before the softmax, so calibration works on what the loss was computed on.

With two experts, one is trained on varied tiles and the other on tiles as they are. A gate, fitted to tell
the two kinds apart, mixes them: logits = varied + gate / 2 * (plain - varied), which is the experts' mean for
a tile that looks as those of the training set do, and the varied expert's answer alone for any other.
"""

import math
from typing import Any, Final

import keras
from keras import layers, ops

from shared.manifest import InputSpec
from training.experiment import ExpertPlan, NetworkPlan

FEATURES_LAYER: Final = "features"
LOGITS_LAYER: Final = "logits"
#: Of a network of two experts: their logits, what the gate looks at, and what it says, before the sigmoid.
VARIED_LOGITS_LAYER: Final = "varied_logits"
PLAIN_LOGITS_LAYER: Final = "plain_logits"
PLAIN_FEATURES_LAYER: Final = "plain_features"
GATE_LAYERS: Final = ("gate_dense", "gate_norm", "gate_relu", "gate_logit")
_NORM_MOMENTUM: Final = 0.98
#: Added before a square root, whose slope at 0 has no end.
_ROOT_OFFSET: Final = 1e-3
_VARIANCE_OFFSET: Final = 1e-4
_COLOUR_REDUCTION: Final = 4


def build_model(spec: InputSpec, plan: NetworkPlan, class_count: int) -> Any:
    """Return a `keras.Model` from images (n, height, width, 3), values 0 to 255, to probabilities."""
    image = keras.Input((spec.height, spec.width, 3), name="image")
    values = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalise")(image)
    if plan.plain is None:
        features = _features(values, plan, "", FEATURES_LAYER)
        logits = layers.Dense(class_count, name=LOGITS_LAYER)(_head(features, plan, ""))
    else:
        logits = _two_experts(values, plan, plan.plain, class_count)
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


def _two_experts(values: Any, plan: NetworkPlan, plain_plan: ExpertPlan, class_count: int) -> Any:
    features = _features(values, plan, "varied_", FEATURES_LAYER)
    varied = layers.Dense(class_count, name=VARIED_LOGITS_LAYER)(_head(features, plan, "varied_"))
    features = _features(values, plain_plan, "plain_", PLAIN_FEATURES_LAYER)
    plain = layers.Dense(class_count, name=PLAIN_LOGITS_LAYER)(_head(features, plain_plan, "plain_"))
    share = layers.Activation("sigmoid", name="gate")(_gate(features, plan.gate_units))
    difference = layers.Subtract(name="plain_less_varied")([plain, varied])
    towards_plain = layers.Rescaling(0.5, name="half")(layers.Multiply(name="gated")([difference, share]))
    return layers.Add(name=LOGITS_LAYER)([varied, towards_plain])


def _gate(features: Any, units: int) -> Any:
    dense, norm, relu, logit = GATE_LAYERS
    values = layers.Dense(units, use_bias=False, name=dense)(features)
    values = layers.BatchNormalization(momentum=_NORM_MOMENTUM, name=norm)(values)
    return layers.Dense(1, name=logit)(layers.ReLU(name=relu)(values))


def _features(values: Any, plan: ExpertPlan, prefix: str, name: str) -> Any:
    """Average each block's last maps; the coarse ones see tissue, the finer ones nuclei and their grain."""
    ends = _blocks(values, plan, prefix)[-plan.pooled_blocks :]
    pooled = []
    for number, end in enumerate(ends):
        pooled += _pool(end, plan, f"{prefix}tap{number + 1}")
    if plan.colour_filters:
        pooled.append(_colour_histogram(values, plan, prefix))
    last = f"{name}_linear" if plan.root else name
    features = layers.Concatenate(name=last)(pooled)
    if not plan.root:
        return features
    rooted = ops.sqrt(features + _ROOT_OFFSET)
    return layers.BatchNormalization(momentum=_NORM_MOMENTUM, center=False, scale=False, name=name)(rooted)


def _blocks(values: Any, plan: ExpertPlan, prefix: str) -> list[Any]:
    """Return the maps at the end of each block, from the finest to the coarsest."""
    ends = []
    if plan.stem_filters:
        values = _convolution(values, plan.stem_filters, f"{prefix}stem", size=5, stride=2)
        ends.append(values)
        values = layers.MaxPooling2D(name=f"{prefix}stem_pool")(values)
    for number, (filters, count) in enumerate(zip(plan.filters, plan.convolutions, strict=True)):
        if number:
            values = layers.MaxPooling2D(name=f"{prefix}block{number}_pool")(values)
        for step in range(count):
            values = _convolution(values, filters, f"{prefix}block{number + 1}_conv{step + 1}")
        ends.append(values)
    return ends


def _pool(values: Any, plan: ExpertPlan, name: str) -> list[Any]:
    if plan.tap_filters:
        values = _convolution(values, plan.tap_filters, name, size=1)
    mean = layers.GlobalAveragePooling2D(name=f"{name}_mean")(values)
    if not plan.spread:
        return [mean]
    square = layers.GlobalAveragePooling2D(name=f"{name}_square_mean")(layers.Multiply()([values, values]))
    return [mean, ops.sqrt(ops.relu(square - mean * mean) + _VARIANCE_OFFSET)]


def _colour_histogram(values: Any, plan: ExpertPlan, prefix: str) -> Any:
    values = layers.AveragePooling2D(_COLOUR_REDUCTION, name=f"{prefix}colour_pool")(values)
    for number, filters in enumerate(plan.colour_filters):
        values = _convolution(values, filters, f"{prefix}colour{number + 1}", size=1)
    return layers.GlobalAveragePooling2D(name=f"{prefix}colour_mean")(values)


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
    values = layers.BatchNormalization(momentum=_NORM_MOMENTUM, name=f"{name}_norm")(values)
    return layers.ReLU(name=f"{name}_relu")(values)


def _head(features: Any, plan: ExpertPlan, prefix: str) -> Any:
    values = features
    if plan.feature_dropout:
        values = layers.Dropout(plan.feature_dropout, name=f"{prefix}feature_dropout")(values)
    values = layers.Dense(plan.dense_units, use_bias=False, name=f"{prefix}head_dense")(values)
    values = layers.BatchNormalization(momentum=_NORM_MOMENTUM, name=f"{prefix}head_norm")(values)
    values = layers.ReLU(name=f"{prefix}head_relu")(values)
    return layers.Dropout(plan.dropout, name=f"{prefix}head_dropout")(values)
