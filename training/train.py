"""Fit the weights, from fixed seeds, into a run folder that can be resumed after any epoch."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.architecture import build_model
from training.augment import augment, mix
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_whole
from training.dataset import Images, Tile, labels_of
from training.errors import TrainingError
from training.experiment import Experiment, TrainPlan
from training.inference import build_forward
from training.listing import CLASS_NAMES
from training.metrics import accuracy
from training.splits import Split

#: The finished network, with averaged weights.
NETWORK_NAME = "network.keras"
HISTORY_NAME = "history.json"


class Trainer:
    """One run: a network, its running average, and the optimiser, advanced epoch by epoch."""

    def __init__(self, experiment: Experiment, tiles: Sequence[Tile], images: Images, split: Split) -> None:
        keras.utils.set_random_seed(experiment.train.seed)
        self._experiment = experiment
        self._images = images
        self._labels = labels_of(tiles)
        self._split = split
        self._clusters = _rows_by_cluster(tiles, fitted_rows(split, experiment.train))
        self.network = build_model(experiment.input, experiment.network, len(CLASS_NAMES))
        self._average = [weight.copy() for weight in self.network.get_weights()]
        self._optimizer = _build_optimizer(self.network, experiment.train)
        self._forward = build_forward(self.network)
        self._step = _build_step(self.network, self._optimizer, experiment)
        self._history: list[dict[str, float]] = []

    def run(self, folder: Path, resume: bool, report: Callable[[str], None] = print) -> None:
        """Train to the last epoch and write the network with averaged weights into `folder`."""
        if resume:
            self._restore(folder)
        for epoch in range(len(self._history), self._experiment.train.epochs):
            self._history.append(self._run_epoch(epoch))
            self._save(folder)
            report(_progress(self._history, self._experiment.train.epochs))
        self.network.set_weights(self._average)
        self.network.save(folder / NETWORK_NAME)
        # Last and whole: with it the run counts as finished.
        write_whole(folder / HISTORY_NAME, json.dumps(self._history, indent=1))

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        plan = self._experiment.train
        started = perf_counter()
        rows = sample_rows(self._clusters, plan.copies_per_cluster, plan.seed, epoch)
        steps = len(rows) // plan.batch_size
        losses = []
        for number in range(steps):
            batch = rows[number * plan.batch_size : (number + 1) * plan.batch_size]
            done = epoch + number / steps
            self._optimizer.learning_rate = learning_rate(plan, done)
            seed = (plan.seed, epoch * steps + number)
            losses.append(float(self._step(self._images.inputs[batch], self._labels[batch], seed)))
            self._update_average(epoch * steps + number)
        return {
            "epoch": epoch + 1,
            "loss": float(np.mean(losses)),
            **self._validate(),
            "seconds": perf_counter() - started,
        }

    def _update_average(self, step: int) -> None:
        # The average of a young run would be mostly its random start: it forgets faster then.
        decay = min(self._experiment.train.average_decay, (1 + step) / (10 + step))
        weights = self.network.get_weights()
        self._average = [
            decay * average + (1 - decay) * weight
            for average, weight in zip(self._average, weights, strict=True)
        ]

    def _validate(self) -> dict[str, float]:
        rows = self._split.validation
        if not len(rows):
            return {}  # a fold of a cross-validation holds nothing back to choose by
        current = self.network.get_weights()
        self.network.set_weights(self._average)
        logits = self._forward(self._images.inputs[rows])
        self.network.set_weights(current)
        return {"validation_accuracy": accuracy(logits, self._labels[rows])}

    def _save(self, folder: Path) -> None:
        # All variables and not the weights alone: dropout keeps the state of its random numbers among them.
        network = [np.asarray(variable) for variable in self.network.variables]
        optimizer = [np.asarray(variable) for variable in self._optimizer.variables]
        save_checkpoint(folder, Checkpoint(network, self._average, optimizer, self._history))

    def _restore(self, folder: Path) -> None:
        state = load_checkpoint(folder)
        if state is None:
            return
        variables = [*self.network.variables, *self._optimizer.variables]
        for variable, value in zip(variables, [*state.network, *state.optimizer], strict=True):
            variable.assign(value)
        self._average = state.average
        self._history = state.history


def read_history(folder: Path) -> list[dict[str, float]]:
    """Return the figures of a finished run, one record per epoch.

    Raises:
        TrainingError: if training has not finished.
    """
    try:
        history: list[dict[str, float]] = json.loads((folder / HISTORY_NAME).read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"Expected a finished run: {error}. Run `train --resume` first.") from error
    return history


def fitted_rows(split: Split, plan: TrainPlan) -> NDArray[np.int64]:
    """Return the rows whose tiles move the weights."""
    return np.concatenate([split.train, split.validation]) if plan.with_validation else split.train


def learning_rate(plan: TrainPlan, epochs_done: float) -> float:
    """Return the rate at a moment of the run: a linear rise, then half a cosine down to nothing."""
    if epochs_done < plan.warm_up_epochs:
        return plan.learning_rate * (epochs_done + 0.01) / plan.warm_up_epochs
    share = (epochs_done - plan.warm_up_epochs) / max(plan.epochs - plan.warm_up_epochs, 1e-9)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def sample_rows(
    clusters: Sequence[NDArray[np.int64]], copies: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Return the rows that an epoch sees, shuffled: a few copies of each cluster, other ones each epoch."""
    random = np.random.default_rng((seed, epoch))
    rows = [random.choice(rows, min(copies, len(rows)), replace=False) for rows in clusters]
    return random.permutation(np.concatenate(rows))


def _rows_by_cluster(tiles: Sequence[Tile], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    clusters: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        clusters[tiles[row].cluster].append(int(row))
    return [np.array(members) for _, members in sorted(clusters.items())]


def _build_optimizer(network: Any, plan: TrainPlan) -> Any:
    optimizer = keras.optimizers.AdamW(plan.learning_rate, weight_decay=plan.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(network.trainable_variables)
    return optimizer


def _build_step(network: Any, optimizer: Any, experiment: Experiment) -> Callable[..., Any]:
    logits_model = keras.Model(network.inputs, network.get_layer("logits").output)
    loss_function = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=experiment.train.label_smoothing
    )

    def step(batch: Any, labels: Any, seed: Any) -> Any:
        varied, targets = augment(batch, experiment.augment, seed), tf.one_hot(labels, len(CLASS_NAMES))
        if experiment.train.mixup:
            varied, targets = mix(varied, targets, experiment.train.mixup, seed)
        with tf.GradientTape() as tape:
            logits = logits_model(varied, training=True)
            loss = loss_function(targets, logits)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return loss

    compiled = tf.function(step, autograph=False)
    return lambda batch, labels, seed: compiled(
        tf.constant(batch), tf.constant(labels), tf.constant(seed, tf.int32)
    )


def _progress(history: Sequence[dict[str, float]], epochs: int) -> str:
    last = history[-1]
    minutes_left = last["seconds"] * (epochs - len(history)) / 60
    score = last.get("validation_accuracy")
    return (
        f"epoch {len(history)}/{epochs}  loss {last['loss']:.4f}"
        f"{'' if score is None else f'  validation accuracy {score:.4f}'}"
        f"  {last['seconds']:.0f} s, about {minutes_left:.0f} min left"
    )
