"""`python -m ops.models`: list what is published, publish a version, choose the one that new jobs get.

python -m ops.models list
python -m ops.models publish [FOLDER]     publish a version, by default the newest in models/; new jobs get it
python -m ops.models use VERSION          have new jobs get a published version: an older one to roll back

Beside `make up` it finds the servers by itself; else they are named by the usual variables. Jobs that were
accepted before keep the version that they were given. Servers know of a change after about ten seconds.
"""

import argparse
import sys
from pathlib import Path

from ops.installation import reach
from ops.prepare import newest_bundled_model
from shared.errors import HistoQueueError, InvalidModel, NoModel, explain
from shared.model_registry import ModelRegistry


def show(models: ModelRegistry) -> None:
    """Print a line for each version, newest first."""
    try:
        live = models.live().version
    except NoModel:
        live = None
    except InvalidModel as error:
        live = None
        print(f"error: {error.code}: {error}", file=sys.stderr)
    versions = models.versions()
    if not versions:
        print("no version is published", file=sys.stderr)
    for version in reversed(versions):
        print(f"{version}  {'live' if version == live else 'published'}")


def main(arguments: list[str] | None = None) -> int:
    """Do one of the three; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    models = reach().models
    try:
        if chosen.command == "list":
            show(models)
            return 0
        if chosen.command == "publish":
            live = models.publish(chosen.folder or newest_bundled_model())
        else:
            live = models.make_live(chosen.version)
    except HistoQueueError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    print(f"new jobs get {live.name} {live.version}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    commands.add_parser("publish").add_argument("folder", type=Path, nargs="?")
    commands.add_parser("use").add_argument("version")
    return parser


if __name__ == "__main__":
    sys.exit(main())
