"""What each command of `python -m training` does, in the order in which they are run."""

import argparse
import json

from training.calibrate import calibrate_run
from training.dataset import load_images, read_tiles
from training.evaluate import evaluate_run
from training.experiment import Experiment, read_experiment
from training.publish import publish_run
from training.run_folder import Run, open_run, read_run_experiment
from training.train import Trainer


def prepare(options: argparse.Namespace) -> None:
    """Check the data folder and decode its tiles into the cache."""
    experiment = read_experiment(options.config) if options.config else Experiment()
    tiles = read_tiles(options.data)
    load_images(options.data, tiles, experiment.input, options.cache)
    clusters = len({tile.cluster for tile in tiles})
    print(f"{len(tiles)} tiles of {clusters} clusters are ready in {options.cache}")


def train(options: argparse.Namespace) -> None:
    """Fit the weights into the run folder."""
    if options.config:
        experiment = read_experiment(options.config)
    else:
        experiment = read_run_experiment(options.run) if options.resume else Experiment()
    run = open_run(options.run, options.data, options.cache, experiment)
    Trainer(run.experiment, run.tiles, run.images, run.split).run(run.folder, resume=options.resume)


def calibrate(options: argparse.Namespace) -> None:
    """Fit temperature and thresholds on the calibration clusters."""
    calibration = calibrate_run(_open_finished(options))
    print(calibration.model_dump_json(indent=1, exclude={"gates"}))


def evaluate(options: argparse.Namespace) -> None:
    """Score the finished and calibrated run on its test clusters."""
    print(json.dumps(evaluate_run(_open_finished(options)), indent=1))


def publish(options: argparse.Namespace) -> None:
    """Write the run as a model version."""
    folder = publish_run(_open_finished(options), options.models, options.version)
    print(f"published {folder}")


def _open_finished(options: argparse.Namespace) -> Run:
    experiment = read_run_experiment(options.run)
    return open_run(options.run, options.data, options.cache, experiment)
