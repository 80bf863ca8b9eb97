"""What the commands do that score a run and publish it: they need more packages than training does."""

import argparse
import json
from pathlib import Path

from ops.installation import reach
from shared.errors import Unavailable, explain
from training.convert import add_converted
from training.cross_evaluate import evaluate_folds
from training.cross_validation import is_cross_validation, reopen_cross_validation
from training.errors import TrainingError
from training.evaluate import evaluate_run
from training.lunghist700 import evaluate_lunghist700
from training.own_folder import evaluate_folder
from training.publish import publish_release, version_folder
from training.release import Release, release_of_folds, release_of_run
from training.report import CARD_NAME, write_report
from training.run_folder import EXPERIMENT_NAME, reopen_run
from training.study import Body, Verdicts


def evaluate(options: argparse.Namespace) -> None:
    """Score what is finished and calibrated on tiles that its weights never saw."""
    if options.model:
        _evaluate_elsewhere(options)
    elif options.skip_unreadable or options.groups or options.layout != "folders":
        raise TrainingError(
            "Expected --model with --skip-unreadable, --groups and --layout: a run's own tiles were dealt out"
            " when it began."
        )
    elif is_cross_validation(_run_folder(options)):
        folds = reopen_cross_validation(options.run, options.data, options.cache)
        body, verdicts = evaluate_folds(folds, options.data, options.foreign, options.draws)
        _report(options.run, body, f"lung-cnn, run {options.run.name}", verdicts)
    else:
        print(json.dumps(evaluate_run(reopen_run(options.run, options.data, options.cache)), indent=1))


def _evaluate_elsewhere(options: argparse.Namespace) -> None:
    """Score a published version on a folder that is not ours."""
    folder = options.run or Path("runs") / f"{options.model.name}-on-{options.data.resolve().name}"
    if (folder / EXPERIMENT_NAME).is_file():
        raise TrainingError(
            f"Expected a folder of its own for the figures of {options.model}. Received a run: {folder}"
        )
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
    models = reach().models
    try:
        reference = models.publish(folder)
    except Unavailable as error:
        raise TrainingError(
            f"{explain(error)}. {folder} is whole: "
            f"`publish --version {version} --bucket`, without --run, tries again."
        ) from error
    print(f"live in the bucket: {reference.name} {reference.version}")


def _release(options: argparse.Namespace) -> Release:
    if is_cross_validation(options.run):
        folds = reopen_cross_validation(options.run, options.data, options.cache)
        return release_of_folds(folds, options.data)
    return release_of_run(reopen_run(options.run, options.data, options.cache), options.data)


def convert(options: argparse.Namespace) -> None:
    """Add the converted networks to a version's folder."""
    manifest = add_converted(options.folder)
    print(
        f"{options.folder} holds {manifest.onnx} and {manifest.mnn}, which answer as {manifest.weights} does"
    )
