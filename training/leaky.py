"""Fit the recipe once on a split by image, to show what copies on both sides make of its figures.

    RUN/leaky    one run like a fold's; nothing else ever reads its weights

`training/splits.py` forbids such a split everywhere else.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sklearn.model_selection import StratifiedKFold

from training.bootstrap import DRAWS, Answers, estimate, rounded
from training.cross_validation import CrossValidation, train_run
from training.dataset import Tile, labels_of
from training.errors import TrainingError
from training.experiment import SplitPlan
from training.outputs import OUTPUTS_NAME, read_outputs, write_outputs
from training.run_folder import Run, start_run
from training.splits import Split, leakage_groups
from training.train import read_history
from worker.engine.calibration import calibrate

LEAKY_NAME: Final = "leaky"
#: What is shown beside the figures of the folds.
FIGURES: Final = ("accuracy", "lowest_recall", "auroc_aca_against_scc")


def train_leaky(folds: CrossValidation) -> None:
    """Fit the recipe on a split by image, unless that is finished; goes on after Ctrl-C."""
    run = _open(folds)
    train_run(run, LEAKY_NAME)
    if not (run.folder / OUTPUTS_NAME).is_file():
        write_outputs(run)


def measure_leaky(folds: CrossValidation, draws: int = DRAWS) -> dict[str, Any] | None:
    """Return the leaky run's figures with what makes them leaky, or None where it was not trained.

    Raises:
        TrainingError: if it was begun and is not finished.
    """
    if not (folds.folder / LEAKY_NAME).is_dir():
        return None
    run = _open(folds)
    if not (run.folder / OUTPUTS_NAME).is_file():
        raise TrainingError(
            f"Expected a finished run in {run.folder}. Run `train --leaky` again: it goes on."
        )
    outputs = read_outputs(run)
    groups = leakage_groups(run.tiles)
    tested = groups[outputs.rows]
    answers = Answers(
        calibrate(outputs.logits, 1.0),  # a temperature would change none of the figures below
        labels_of(run.tiles)[outputs.rows],
        tested,
        np.zeros(len(outputs.rows), np.int64),
    )
    figures = rounded(estimate(answers, draws))
    return {
        "figures": {name: figures[name] for name in FIGURES},
        "test_tiles": len(outputs.rows),
        "train_tiles": len(run.split.train),
        "copies_in_training": round(float(np.isin(tested, groups[run.split.train]).mean()), 4),
        "digest": run.split_digest,
        "seconds": round(sum(epoch["seconds"] for epoch in read_history(run.folder))),
    }


def split_by_image(tiles: Sequence[Tile], plan: SplitPlan) -> Split:
    """Return the split of whoever takes every file for an image of its own: it leaks."""
    dealer = StratifiedKFold(n_splits=plan.test_folds, shuffle=True, random_state=plan.seed)
    train, test = next(iter(dealer.split(np.arange(len(tiles)), labels_of(tiles))))
    nothing = np.empty(0, np.int64)
    return Split(train, nothing, nothing, test)


def _open(folds: CrossValidation) -> Run:
    split = split_by_image(folds.tiles, folds.experiment.split)
    return start_run(folds.folder / LEAKY_NAME, folds.experiment, folds.tiles, folds.images, split)
