"""What the commands do that turn a data folder into a trained and calibrated run, in their order."""

import argparse

from training.calibrate import calibrate_run
from training.cross_calibrate import calibrate_folds
from training.cross_validation import (
    is_cross_validation,
    open_cross_validation,
    reopen_cross_validation,
    train_folds,
    train_release,
)
from training.errors import TrainingError
from training.experiment import Experiment, read_experiment
from training.leaky import train_leaky
from training.prepare import check_grouping, prepare_folder
from training.run_folder import open_run, read_run_experiment, reopen_run
from training.train import Trainer


def prepare(options: argparse.Namespace) -> None:
    """Check the data folder and decode its tiles into the cache."""
    experiment = read_experiment(options.config) if options.config else Experiment()
    tiles = prepare_folder(options.data, options.cache, experiment.input, options.skip_unreadable)
    clusters = len({tile.cluster for tile in tiles})
    print(f"{len(tiles)} tiles of {clusters} clusters are ready in {options.cache}")
    if options.check_grouping:
        agreement = check_grouping(options.data, tiles)
        print(
            f"grouping without the list: pair precision {agreement.precision:.4f},"
            f" recall {agreement.recall:.4f}, {agreement.groups} groups for {agreement.known_groups} clusters"
        )


def train(options: argparse.Namespace) -> None:
    """Fit the weights into the run folder, once or once per fold."""
    if options.config:
        experiment = read_experiment(options.config)
    else:
        known = options.resume or is_cross_validation(options.run)
        experiment = read_run_experiment(options.run) if known else Experiment()
    if options.folds or is_cross_validation(options.run):
        _train_folds(options, experiment)
        return
    if options.release or options.leaky or options.only is not None:
        raise TrainingError(
            "Expected --folds N with --release, --leaky or --only. Received neither folds nor their run."
        )
    run = open_run(options.run, options.data, options.cache, experiment)
    Trainer(run.experiment, run.tiles, run.images, run.split).run(run.folder, resume=options.resume)


def _train_folds(options: argparse.Namespace, experiment: Experiment) -> None:
    """Go on where an earlier call stopped: the folder knows which folds are finished."""
    if options.folds:
        plan = experiment.split.model_copy(update={"test_folds": options.folds})
        experiment = experiment.model_copy(update={"split": plan})
    folds = open_cross_validation(options.run, options.data, options.cache, experiment)
    for number, digest in enumerate(folds.digests):
        print(f"fold {number + 1}: {len(folds.splits[number].test)} test tiles, sha256 {digest}")
    train_folds(folds, options.only)
    if options.release:
        train_release(folds)
    if options.leaky:
        train_leaky(folds)


def calibrate(options: argparse.Namespace) -> None:
    """Fit temperature and thresholds on clusters that the weights never saw."""
    if is_cross_validation(options.run):
        calibration = calibrate_folds(reopen_cross_validation(options.run, options.data, options.cache))
    else:
        calibration = calibrate_run(reopen_run(options.run, options.data, options.cache))
    print(calibration.model_dump_json(indent=1, exclude={"gates"}))
