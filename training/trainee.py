"""A network while it is trained: it varies its tiles and averages its weights inside the compiled step.

What a step changes are variables of the model, so that Keras compiles it whole on every backend, and a run
that is resumed with all of them goes on as if nothing had happened.
"""

from typing import Any

import keras
from keras import ops

from training.architecture import (
    GATE_LAYERS,
    LOGITS_LAYER,
    PLAIN_FEATURES_LAYER,
    PLAIN_LOGITS_LAYER,
    VARIED_LOGITS_LAYER,
)
from training.augment import augment, mix, turn
from training.experiment import Experiment


class Trainee(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """Takes uint8 tiles (n, side, side, 3) and targets (n, classes); gives the loss of each part to fit.

    A network of one expert has one part. Of two, each expert is fitted to its own kind of tile, and the gate
    to tell the kinds apart; nothing is fitted to what the network makes of the three.
    """

    def __init__(self, network: Any, experiment: Experiment) -> None:
        super().__init__(name="trainee")
        self._augment_plan, self._train_plan = experiment.augment, experiment.train
        #: From tiles to logits; its weights are those of `network`.
        self.trunk = keras.Model(network.inputs, network.get_layer(LOGITS_LAYER).output)
        self._varied, self._plain, self._gate = self.trunk, None, []
        if experiment.network.plain is not None:
            self._varied = _part(network, VARIED_LOGITS_LAYER)
            self._plain = _part(network, PLAIN_LOGITS_LAYER, PLAIN_FEATURES_LAYER)
            self._gate = [network.get_layer(name) for name in GATE_LAYERS]
        self._seed = keras.random.SeedGenerator(experiment.train.seed)
        self._steps = keras.Variable(0, dtype="int32", trainable=False, name="steps")
        self._average = [
            keras.Variable(weight, trainable=False, name=f"average_{number}")
            for number, weight in enumerate(self.trunk.get_weights())
        ]
        self._loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=experiment.train.label_smoothing
        )
        self._gate_loss = keras.losses.BinaryCrossentropy(from_logits=True)
        self.built = True  # nothing is left to be made of the first batch

    def call(self, inputs: Any, training: bool = False) -> list[Any]:
        """Return the loss of each part."""
        tiles, targets = inputs
        if training:
            self._update_average()
        varied, varied_targets = augment(tiles, self._augment_plan, self._seed), targets
        if self._train_plan.mixup:
            varied, varied_targets = mix(varied, targets, self._train_plan.mixup, self._seed)
        losses = [self._loss(varied_targets, self._varied(varied, training=training))]
        if self._plain is not None:
            plain = turn(ops.cast(tiles, "float32"), self._seed)
            losses.append(self._loss(targets, self._plain(plain, training=training)[0]))
            losses.append(self._fit_gate(self._plain, plain, varied, training))
        return losses

    def compute_loss(
        self,
        x: Any = None,  # noqa: ARG002 - the form of the method is Keras's
        y: Any = None,  # noqa: ARG002
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002
        training: bool = True,  # noqa: ARG002
    ) -> Any:
        """Return the sum of what `call` gave."""
        return sum(y_pred)

    def averaged_weights(self) -> list[Any]:
        """Return the running average of `trunk`'s weights, as arrays in their order."""
        return [ops.convert_to_numpy(average) for average in self._average]

    def _fit_gate(self, expert: Any, plain: Any, varied: Any, training: bool) -> Any:
        """Return the gate's loss; it looks at features as they are served, and does not move them."""
        features = expert(ops.concatenate([plain, varied]), training=False)[1]
        values = ops.stop_gradient(features)
        for layer in self._gate:
            values = layer(values, training=training)
        kinds = ops.concatenate([ops.ones_like(plain[:, :1, 0, 0]), ops.zeros_like(varied[:, :1, 0, 0])])
        return self._gate_loss(kinds, values)

    def _update_average(self) -> None:
        """Take in the weights that the step before left; those of the last step of all hardly moved."""
        done = ops.cast(self._steps, "float32")
        # The average of a young run would be mostly its random start: it forgets faster then.
        decay = ops.minimum(self._train_plan.average_decay, done / (9.0 + done))
        for average, weight in zip(self._average, self.trunk.weights, strict=True):
            average.assign(decay * average + (1.0 - decay) * weight)
        self._steps.assign(self._steps + 1)


def _part(network: Any, *layers: str) -> Any:
    """Return the network up to some of its layers, with the same weights."""
    outputs = [network.get_layer(name).output for name in layers]
    return keras.Model(network.inputs, outputs if len(outputs) > 1 else outputs[0])
