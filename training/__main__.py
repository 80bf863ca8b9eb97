"""`python -m training COMMAND`: one command per step, from a data folder to a published model version."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from training.errors import TrainingError

DEFAULT_DATA = Path("../shared/data/lc25000-lung-224")
DEFAULT_CACHE = Path("runs/cache")
EXAMPLES = """
examples, in the order of a whole run:
  python -m training prepare --data ../shared/data/lc25000-lung-224
  python -m training train --config training/configs/lung-cnn-0.1.0.toml --run runs/first
  python -m training train --run runs/first --resume
  python -m training calibrate --run runs/first
  python -m training evaluate --run runs/first
  python -m training publish --run runs/first --version 0.1.0
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 for unusable input, 130 for Ctrl-C."""
    options = build_parser().parse_args(arguments)
    try:
        _commands_module().__dict__[options.command](options)
    except (TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: `train --resume` goes on after the last finished epoch", file=sys.stderr)
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
    prepare = _add(commands, "prepare", "check the data folder and decode its tiles once", needs_run=False)
    prepare.add_argument("--config", type=Path, help="experiment whose input size to decode for")
    train = _add(commands, "train", "fit the weights into a run folder")
    train.add_argument("--config", type=Path, help="TOML file of the experiment; default: built-in values")
    train.add_argument("--resume", action="store_true", help="go on after the last finished epoch")
    _add(commands, "calibrate", "fit temperature and thresholds on the run's calibration clusters")
    _add(commands, "evaluate", "score the calibrated run on its test clusters, once all is decided")
    publish = _add(commands, "publish", "write the evaluated run as an immutable model version")
    publish.add_argument("--version", required=True, help="three numbers: 0.1.0")
    publish.add_argument("--models", type=Path, default=Path("models"), help="folder of model versions")
    return parser


def _add(commands: Any, name: str, text: str, needs_run: bool = True) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("--data", type=Path, default=DEFAULT_DATA, help="tiles with their clusters.csv")
    command.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where decoded tiles are kept")
    if needs_run:
        command.add_argument("--run", type=Path, required=True, help="the run's folder")
    return command


def _commands_module() -> Any:
    """Import TensorFlow only now: it takes seconds, and `--help` need not wait for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return import_module("training.commands")


if __name__ == "__main__":
    sys.exit(main())
