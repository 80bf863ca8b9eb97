"""`python -m training COMMAND`: one command per step, from a data folder to a published model version."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from shared.errors import HistoQueueError
from training.errors import TrainingError

DEFAULT_DATA = Path("../shared/data/lc25000-lung-224")
DEFAULT_FOREIGN = Path("../shared/data/foreign")
DEFAULT_CACHE = Path("runs/cache")
#: They need packages that a machine which only trains may do without.
_RELEASE_COMMANDS = frozenset({"evaluate", "publish", "convert"})
EXAMPLES = """
examples, in the order of a whole run:
  python -m training prepare --data ../shared/data/lc25000-lung-224
  python -m training train --config training/configs/lung-cnn-1.1.0.toml --run runs/first
  python -m training train --run runs/first --resume
  python -m training calibrate --run runs/first
  python -m training evaluate --run runs/first
  python -m training publish --run runs/first --version 0.1.0

cross-validation, a release that is trained on every cluster, and a network on a split that leaks, to compare;
the same lines again go on after Ctrl-C:
  python -m training train --config training/configs/lung-cnn-1.1.0.toml --run runs/cv --folds 5 --release
  python -m training train --run runs/cv --leaky
  python -m training calibrate --run runs/cv
  python -m training evaluate --run runs/cv
  python -m training publish --run runs/cv --version 1.1.0

a version that is there, into the servers' bucket as the live one:
  python -m training publish --version 1.1.4 --bucket

a published version on your own labelled folder, with images of one patient drawn together:
  python -m training evaluate --model models/lung-cnn-1.1.4 --data FOLDER --groups patients.csv
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 for unusable input, 130 for Ctrl-C."""
    options = build_parser().parse_args(arguments)
    try:
        _find_command(options.command)(options)
    except (TrainingError, HistoQueueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        way_on = (
            "`train --resume` goes on after the last finished epoch"
            if options.command == "train"
            else f"`{options.command}` begins again"
        )
        print(f"interrupted: {way_on}", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    prepare = _add(
        commands, "prepare", "check the data folder, group copies, and decode its tiles once", needs_run=False
    )
    prepare.add_argument("--config", type=Path, help="experiment whose input size to decode for")
    _add_skip_unreadable(prepare)
    prepare.add_argument(
        "--check-grouping", action="store_true", help="group the tiles without their list too, and compare"
    )
    train = _add(commands, "train", "fit the weights into a run folder")
    train.add_argument("--config", type=Path, help="TOML file of the experiment; default: built-in values")
    train.add_argument("--resume", action="store_true", help="go on after the last finished epoch")
    train.add_argument(
        "--folds", type=int, choices=range(2, 21), metavar="N", help="cross-validate: one run per fold"
    )
    train.add_argument(
        "--release", action="store_true", help="after the folds, fit the same recipe on all clusters"
    )
    train.add_argument(
        "--only",
        type=int,
        nargs="*",
        metavar="FOLD",
        help="of the folds, train these, counted from 1, or none: several processes may share a run",
    )
    train.add_argument(
        "--leaky", action="store_true", help="fit it on a split by image too: the card shows what that hides"
    )
    _add(commands, "calibrate", "fit temperature and thresholds on the run's calibration clusters")
    evaluate = _add(
        commands, "evaluate", "score what is calibrated on tiles it never saw, and write the card", None
    )
    evaluate.add_argument("--foreign", type=Path, default=DEFAULT_FOREIGN, help="images for the gates")
    evaluate.add_argument("--model", type=Path, help="a published version, to score on the folder of --data")
    evaluate.add_argument("--groups", type=Path, help="CSV with the columns path, class and --group-column")
    evaluate.add_argument("--group-column", default="patient", help="whose images are drawn together")
    evaluate.add_argument("--layout", choices=("folders", "lunghist700"), default="folders")
    _add_skip_unreadable(evaluate)
    evaluate.add_argument("--draws", type=int, default=2000, help="draws of each bootstrap")
    publish = _add(commands, "publish", "write the evaluated run as an immutable model version", None)
    publish.add_argument("--version", required=True, help="three numbers: 0.1.0")
    publish.add_argument("--models", type=Path, default=Path("models"), help="folder of model versions")
    publish.add_argument(
        "--bucket", action="store_true", help="copy it into the servers' bucket too, and make it the live one"
    )
    convert = commands.add_parser(
        "convert", help="add the networks for ONNX Runtime and MNN to a version's folder"
    )
    convert.add_argument("folder", type=Path, help="such as models/lung-cnn-1.1.4, not in a bucket yet")
    return parser


def _add(commands: Any, name: str, text: str, needs_run: bool | None = True) -> argparse.ArgumentParser:
    """Return the parser of one command; with None it takes `--run`, and does without it."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="class folders, with or without a clusters.csv"
    )
    command.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where decoded tiles are kept")
    if needs_run is not False:
        command.add_argument("--run", type=Path, required=bool(needs_run), help="the run's folder")
    return command


def _add_skip_unreadable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--skip-unreadable", action="store_true", help="leave files out that cannot be decoded, naming each"
    )


def _find_command(name: str) -> Callable[[argparse.Namespace], None]:
    """Import Keras and its backend only now: they take seconds, and `--help` need not wait for them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    module = "training.release_commands" if name in _RELEASE_COMMANDS else "training.commands"
    command: Callable[[argparse.Namespace], None] = getattr(import_module(module), name)
    return command


if __name__ == "__main__":
    sys.exit(main())
