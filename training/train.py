"""Fit the weights, from fixed seeds, into a run folder that can be resumed after any epoch."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.architecture import build_model
from training.checkpoint import Checkpoint, alone_in, load_checkpoint, save_checkpoint, write_whole
from training.dataset import Images, Tile, labels_of
from training.errors import TrainingError
from training.experiment import Experiment, TrainPlan
from training.inference import build_forward
from training.listing import CLASS_NAMES
from training.metrics import accuracy
from training.network_facts import software_facts
from training.splits import Split
from training.trainee import Trainee

#: The finished network, with averaged weights.
NETWORK_NAME = "network.keras"
HISTORY_NAME = "history.json"
#: What the weights were fitted with: figures may be made elsewhere, with another backend.
SOFTWARE_NAME = "software.json"


class Trainer:
    """One run: a network, its running average, and the optimiser, advanced epoch by epoch."""

    def __init__(self, experiment: Experiment, tiles: Sequence[Tile], images: Images, split: Split) -> None:
        """Build the network and its compiled step.

        Raises:
            TrainingError: if an epoch has not the tiles for one batch.
        """
        plan = experiment.train
        _keep_order()
        keras.utils.set_random_seed(plan.seed)
        self._plan = plan
        self._images = images
        self._labels = labels_of(tiles)
        self._split = split
        self._clusters = _rows_by_cluster(tiles, fitted_rows(split, plan))
        self.network = build_model(experiment.input, experiment.network, len(CLASS_NAMES))
        self._forward = build_forward(self.network)
        self._trainee = Trainee(self.network, experiment)
        self._optimizer = _build_optimizer(self._trainee, plan, self._steps_per_epoch())
        # TensorFlow has no XLA kernel that moves an image; JAX compiles nothing but by XLA.
        self._trainee.compile(self._optimizer, jit_compile=keras.backend.backend() == "jax")
        self._history: list[dict[str, float]] = []
        self._epoch_began = perf_counter()

    def run(self, folder: Path, resume: bool, report: Callable[[str], None] = print) -> None:
        """Train to the last epoch and write the network with averaged weights into `folder`.

        Raises:
            TrainingError: if the folder has no room, its checkpoint is not one of this trainer, or another
                process trains in it.
        """
        with alone_in(folder):
            self._run(folder, resume, report)

    def _run(self, folder: Path, resume: bool, report: Callable[[str], None]) -> None:
        if resume:
            self._restore(folder)
        if len(self._history) < self._plan.epochs:
            self._fit(lambda _, logs: self._end_epoch(folder, float(logs["loss"]), report))
        self.network.set_weights(self._trainee.averaged_weights())
        self.network.save(folder / NETWORK_NAME)
        write_whole(folder / SOFTWARE_NAME, json.dumps(software_facts(), indent=1))
        # Last and whole: with it the run counts as finished.
        write_whole(folder / HISTORY_NAME, json.dumps(self._history, indent=1))

    def _fit(self, end_epoch: Callable[[int, dict[str, float]], None]) -> None:
        """Run the epochs that are left, in one call: each sets its input up anew, for seconds."""
        self._epoch_began = perf_counter()
        self._trainee.fit(
            self._batches(len(self._history)),
            steps_per_epoch=self._steps_per_epoch(),
            initial_epoch=len(self._history),
            epochs=self._plan.epochs,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=end_epoch)],
            shuffle=False,
            verbose=0,
        )

    def _end_epoch(self, folder: Path, loss: float, report: Callable[[str], None]) -> None:
        figures = {"epoch": len(self._history) + 1, "loss": loss, **self._validate()}
        self._history.append({**figures, "seconds": perf_counter() - self._epoch_began})
        self._save(folder)
        report(_progress(self._history, self._plan.epochs))
        self._epoch_began = perf_counter()

    def _batches(self, done: int) -> Iterator[tuple[tuple[NDArray[np.uint8], NDArray[np.float32]]]]:
        """Yield the inputs of each step that is left: tiles, and a row of zeros and a one for each label."""
        plan, targets = self._plan, np.eye(len(CLASS_NAMES), dtype=np.float32)
        for epoch in range(done, plan.epochs):
            rows = sample_rows(self._clusters, plan.copies_per_cluster, plan.seed, epoch)
            for number in range(self._steps_per_epoch()):
                batch = rows[number * plan.batch_size : (number + 1) * plan.batch_size]
                yield ((self._images.inputs[batch], targets[self._labels[batch]]),)

    def _steps_per_epoch(self) -> int:
        tiles = sum(min(self._plan.copies_per_cluster, len(rows)) for rows in self._clusters)
        if tiles < self._plan.batch_size:
            raise TrainingError(
                f"Expected the {self._plan.batch_size} tiles of a batch in an epoch. Received: {tiles}"
            )
        return tiles // self._plan.batch_size

    def _validate(self) -> dict[str, float]:
        rows = self._split.validation
        if not len(rows):
            return {}  # a fold of a cross-validation holds nothing back to choose by
        current = self.network.get_weights()
        self.network.set_weights(self._trainee.averaged_weights())
        logits = self._forward(self._images.inputs[rows])
        self.network.set_weights(current)
        return {"validation_accuracy": accuracy(logits, self._labels[rows])}

    def _variables(self) -> list[Any]:
        """Return all that a step changes: weights, their average, seeds' states, the optimiser's moments."""
        return [*self._trainee.variables, *self._optimizer.variables]

    def _save(self, folder: Path) -> None:
        values = [keras.ops.convert_to_numpy(variable) for variable in self._variables()]
        save_checkpoint(folder, Checkpoint(values, self._history))

    def _restore(self, folder: Path) -> None:
        state = load_checkpoint(folder)
        if state is None:
            return
        variables = self._variables()
        if len(variables) != len(state.variables):
            raise TrainingError(
                f"Expected a checkpoint of this trainer in {folder}. Received an older one's."
            )
        for variable, value in zip(variables, state.variables, strict=True):
            variable.assign(value)
        self._history = state.history


def _keep_order() -> None:
    """Keep TensorFlow from dropping edges of a step's graph that say what is read before it is changed.

    Its dependency optimizer does: the gate then looks, once in hundreds of steps, at features of weights that
    the optimiser has moved already, and the same seeds give another network.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow  # noqa: PLC0415  # the other backends do without

        tensorflow.config.optimizer.set_experimental_options({"dependency_optimization": False})


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


def read_software(folder: Path) -> str:
    """Return in words what a run was trained with; nothing where it is older than that record."""
    try:
        facts = json.loads((folder / SOFTWARE_NAME).read_text(encoding="utf-8"))
    except OSError:
        return ""
    return ", ".join(f"{name} {version}" for name, version in facts.items())


def fitted_rows(split: Split, plan: TrainPlan) -> NDArray[np.int64]:
    """Return the rows whose tiles move the weights."""
    return np.concatenate([split.train, split.validation]) if plan.with_validation else split.train


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


def _build_optimizer(trainee: Any, plan: TrainPlan, steps_per_epoch: int) -> Any:
    """Return an optimiser whose rate rises in a line and then falls to nothing in half a cosine."""
    steps = plan.epochs * steps_per_epoch
    warm_up = min(round(plan.warm_up_epochs * steps_per_epoch), steps - 1)
    rate = keras.optimizers.schedules.CosineDecay(
        # The first step of all moves the weights too, or its batch would be wasted.
        plan.learning_rate / (warm_up + 1),
        decay_steps=steps - warm_up,
        warmup_target=plan.learning_rate,
        warmup_steps=warm_up,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=plan.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(trainee.trainable_variables)
    return optimizer


def _progress(history: Sequence[dict[str, float]], epochs: int) -> str:
    last = history[-1]
    minutes_left = last["seconds"] * (epochs - len(history)) / 60
    score = last.get("validation_accuracy")
    return (
        f"epoch {len(history)}/{epochs}  loss {last['loss']:.4f}"
        f"{'' if score is None else f'  validation accuracy {score:.4f}'}"
        f"  {last['seconds']:.0f} s, about {minutes_left:.0f} min left"
    )
