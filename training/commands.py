"""What each command of `python -m training` does, in the order in which they are run."""

import argparse
import json
from pathlib import Path

from shared.errors import Unavailable
from shared.object_store import WORKER_PATIENCE
from shared.services import from_settings
from shared.settings import Settings, read_settings
from training.calibrate import calibrate_run
from training.convert import add_onnx
from training.cross_calibrate import calibrate_folds
from training.cross_evaluate import evaluate_folds
from training.cross_validation import (
    CrossValidation,
    is_cross_validation,
    open_cross_validation,
    train_folds,
    train_release,
)
from training.errors import TrainingError
from training.evaluate import evaluate_run
from training.experiment import Experiment, read_experiment
from training.leaky import train_leaky
from training.lunghist700 import evaluate_lunghist700
from training.own_folder import evaluate_folder
from training.prepare import check_grouping, prepare_folder
from training.publish import publish_release, version_folder
from training.release import Release, release_of_folds, release_of_run
from training.report import CARD_NAME, write_report
from training.run_folder import Run, open_run, read_run_experiment
from training.study import Body, Verdicts
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
    if options.release or options.leaky:
        raise TrainingError(
            "Expected --folds N with --release or --leaky. Received neither folds nor their run."
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
        calibration = calibrate_folds(_open_folds(options))
    else:
        calibration = calibrate_run(_open_finished(options))
    print(calibration.model_dump_json(indent=1, exclude={"gates"}))


def evaluate(options: argparse.Namespace) -> None:
    """Score what is finished and calibrated on tiles that its weights never saw."""
    if options.model:
        _evaluate_elsewhere(options)
    elif options.skip_unreadable:
        raise TrainingError(
            "Expected --model with --skip-unreadable: `prepare` decides on a run's own tiles."
        )
    elif is_cross_validation(_run_folder(options)):
        folds = _open_folds(options)
        body, verdicts = evaluate_folds(folds, options.data, options.foreign, options.draws)
        _report(options.run, body, f"lung-cnn, run {options.run.name}", verdicts)
    else:
        print(json.dumps(evaluate_run(_open_finished(options)), indent=1))


def _evaluate_elsewhere(options: argparse.Namespace) -> None:
    """Score a published version on a folder that is not ours."""
    folder = options.run or Path("runs") / f"{options.model.name}-on-{options.data.resolve().name}"
    if options.layout == "lunghist700":
        body, verdicts = evaluate_lunghist700(
            options.model, options.data, options.draws, skip_unreadable=options.skip_unreadable
        )
    else:
        groups = (options.groups, options.group_column) if options.groups else None
        places = (options.model, options.data, options.cache, options.foreign)
        body, verdicts = evaluate_folder(
            *places, groups, options.draws, skip_unreadable=options.skip_unreadable
        )
    _report(folder, body, f"{options.model.name} on {options.data.resolve().name}", verdicts)


def _report(folder: Path, body: Body, title: str, verdicts: Verdicts) -> None:
    write_report(folder, body, title, verdicts)
    print(json.dumps(body["summary"], indent=1))
    print(f"the card is {folder / CARD_NAME}")


def _run_folder(options: argparse.Namespace) -> Path:
    if options.run is None:
        raise TrainingError("Expected --run FOLDER, or --model FOLDER with --data FOLDER. Received neither.")
    folder: Path = options.run
    return folder


def publish(options: argparse.Namespace) -> None:
    """Write the run as a model version; without a run, take the one that is there into the bucket."""
    if options.run is None and not options.bucket:
        raise TrainingError(
            "Expected --run FOLDER, or --bucket for a version that is there. Received neither."
        )
    if options.run is None:
        folder = version_folder(options.models, options.version)
    else:
        folder = publish_release(_release(options), options.models, options.version)
        print(f"published {folder}")
    if options.bucket:
        _publish_into_bucket(folder, options.version)


def _publish_into_bucket(folder: Path, version: str) -> None:
    models = from_settings(read_settings(Settings), WORKER_PATIENCE).models
    try:
        reference = models.publish(folder)
    except Unavailable as error:
        raise TrainingError(
            f"{error} {folder} is whole: `publish --version {version} --bucket`, without --run, tries again."
        ) from error
    print(f"live in the bucket: {reference.name} {reference.version}")


def _release(options: argparse.Namespace) -> Release:
    if is_cross_validation(options.run):
        return release_of_folds(_open_folds(options))
    return release_of_run(_open_finished(options))


def convert(options: argparse.Namespace) -> None:
    """Add the converted network to a version's folder."""
    manifest = add_onnx(options.folder)
    print(f"{options.folder} holds {manifest.onnx}, which answers as {manifest.weights} does")


def _open_finished(options: argparse.Namespace) -> Run:
    experiment = read_run_experiment(options.run)
    return open_run(options.run, options.data, options.cache, experiment)


def _open_folds(options: argparse.Namespace) -> CrossValidation:
    experiment = read_run_experiment(options.run)
    return open_cross_validation(options.run, options.data, options.cache, experiment)
