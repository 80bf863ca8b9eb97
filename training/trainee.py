"""A network while it is trained: it varies its tiles and averages its weights inside the compiled step.

What a step changes are variables of the model, so that Keras compiles it whole on every backend, and a run
that is resumed with all of them goes on as if nothing had happened.
"""

from typing import Any

import keras
from keras import ops

from training.architecture import LOGITS_LAYER
from training.augment import augment, mix
from training.experiment import Experiment


class Trainee(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """Takes uint8 tiles (n, side, side, 3) and targets (n, classes); gives logits and the targets to fit."""

    def __init__(self, network: Any, experiment: Experiment) -> None:
        super().__init__(name="trainee")
        self._augment_plan, self._train_plan = experiment.augment, experiment.train
        #: From tiles to logits; its weights are those of `network`.
        self.trunk = keras.Model(network.inputs, network.get_layer(LOGITS_LAYER).output)
        self._seed = keras.random.SeedGenerator(experiment.train.seed)
        self._steps = keras.Variable(0, dtype="int32", trainable=False, name="steps")
        self._average = [
            keras.Variable(weight, trainable=False, name=f"average_{number}")
            for number, weight in enumerate(self.trunk.get_weights())
        ]
        self._loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=experiment.train.label_smoothing
        )
        self.built = True  # nothing is left to be made of the first batch

    def call(self, inputs: Any, training: bool = False) -> tuple[Any, Any]:
        """Return the logits of varied tiles, and their targets, which mixing changes."""
        tiles, targets = inputs
        if training:
            self._update_average()
        varied = augment(tiles, self._augment_plan, self._seed)
        if self._train_plan.mixup:
            varied, targets = mix(varied, targets, self._train_plan.mixup, self._seed)
        return self.trunk(varied, training=training), targets

    def compute_loss(
        self,
        x: Any = None,  # noqa: ARG002 - the form of the method is Keras's
        y: Any = None,  # noqa: ARG002
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002
        training: bool = True,  # noqa: ARG002
    ) -> Any:
        """Return the loss of what `call` gave."""
        logits, targets = y_pred
        return self._loss(targets, logits)

    def averaged_weights(self) -> list[Any]:
        """Return the running average of `trunk`'s weights, as arrays in their order."""
        return [ops.convert_to_numpy(average) for average in self._average]

    def _update_average(self) -> None:
        """Take in the weights that the step before left; those of the last step of all hardly moved."""
        done = ops.cast(self._steps, "float32")
        # The average of a young run would be mostly its random start: it forgets faster then.
        decay = ops.minimum(self._train_plan.average_decay, done / (9.0 + done))
        for average, weight in zip(self._average, self.trunk.weights, strict=True):
            average.assign(decay * average + (1.0 - decay) * weight)
        self._steps.assign(self._steps + 1)
