"""The words of the command line."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ._version import VERSION

_EPILOG = """\
exit status: 0 all succeeded, 1 some failed, 2 wrong usage, 3 the server is unavailable, 130 Ctrl-C

environment: HISTOQUEUE_URL, else http://127.0.0.1:5000; HISTOQUEUE_API_KEY where the server asks for one

  histoqueue predict tile.png
  histoqueue submit tiles/ --out results.csv --out results.ndjson
  histoqueue submit 'slides/**/*.jpeg' --out tiles.geojson --coordinates 'x(?P<x>\\d+)_y(?P<y>\\d+)'
  find tiles -name '*.png' | histoqueue submit - --out results.csv --quiet

Research use only, not for diagnostic use.
"""


Number = TypeVar("Number", int, float)


def _value(
    kind: Callable[[str], Number], is_right: Callable[[Number], bool], expected: str
) -> Callable[[str], Number]:
    """Return what reads a number of this kind, and says what was expected where it is none."""

    def read(text: str) -> Number:
        with contextlib.suppress(ValueError):
            if is_right(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, received {text}")

    return read


# NaN is neither over nor under anything.
_seconds = _value(float, lambda value: value >= 0, "seconds, 0 or more")
_positive = _value(float, lambda value: 0 < value < float("inf"), "a number over 0")
_count = _value(int, lambda value: 1 <= value <= 1000, "1 to 1000")
#: The server knows its bounds.
_number = _value(float, math.isfinite, "a number")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; `command` says which was chosen."""
    top = argparse.ArgumentParser(
        prog="histoqueue",
        description="Submit histopathology tiles to a HistoQueue server.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"histoqueue {VERSION}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--server", metavar="URL", help="where the server is")
    common.add_argument(
        "--patience",
        type=_seconds,
        metavar="SECONDS",
        help="for a server that is away (30; submit 300, doctor 0)",
    )
    common.add_argument("--quiet", action="store_true", help="nothing on standard error but errors")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--json", action="store_true", help="one JSON object a line")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _predict(commands.add_parser("predict", parents=[common, machine], help="classify some files"))
    _submit(commands.add_parser("submit", parents=[common], help="classify very many files"))
    for name, text in (
        ("status", "show a job"),
        ("watch", "wait until a job has ended, then show it"),
        ("cancel", "end a job"),
    ):
        job = commands.add_parser(name, parents=[common, machine], help=text)
        job.add_argument("id", help="the id or the address of the job")
    commands.add_parser("models", parents=[common, machine], help="show the model versions of the server")
    commands.add_parser("doctor", parents=[common, machine], help="examine server, versions, clock, limits")
    return top


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--concurrency", type=_count, default=8, metavar="N", help="tiles at once (8)")
    _add_options(parser)


def _submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="DIR|FILE|GLOB|-",
        help="where the tiles are",
    )
    parser.add_argument(
        "--out",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        help=".csv, .ndjson, .geojson; repeatable",
    )
    parser.add_argument(
        "--concurrency", type=_count, default=256, metavar="N", help="tiles on their way at once (256)"
    )
    places = parser.add_mutually_exclusive_group()
    places.add_argument("--coordinates", metavar="REGEX", help="takes x and y (w and h) from the file's name")
    places.add_argument("--manifest", type=Path, metavar="CSV", help="has the columns file, x, y (w and h)")
    parser.add_argument(
        "--downsample", type=_positive, default=1.0, metavar="N", help="pixels of the slide for one of a tile"
    )
    parser.add_argument(
        "--tile-size",
        type=_positive,
        metavar="N",
        help="a tile's side, where nothing else tells",
    )
    parser.add_argument("--journal", type=Path, metavar="FILE", help="else beside the first --out")
    parser.add_argument("--retry-failed", action="store_true", help="do again what failed before")
    parser.add_argument("--restart", action="store_true", help="forget what was done before")
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-version", metavar="VERSION", help="else the live one")
    parser.add_argument("--mpp", type=_number, metavar="N", help="micrometres per pixel of the images")
    parser.add_argument(
        "--expires-in", type=_number, metavar="SECONDS", help="time for a job to wait in the queue"
    )
    parser.add_argument("--explain", type=Path, metavar="DIR", help="make heat maps too, and keep them there")
