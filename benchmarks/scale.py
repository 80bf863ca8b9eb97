"""How far one Redis carries: many workers, and a long queue.

    python -m benchmarks.scale workers    # 1 to 64 workers whose engine sleeps: jobs a second, of the ideal
    python -m benchmarks.scale queued     # submitting at 1,000 and at 1,000,000 queued jobs, bytes a job

Prints a line of JSON for each measurement; the last one says what came of it.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import scale_queued, scale_workers

MEASURES: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "workers": scale_workers.measure,
    "queued": scale_queued.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for, and print it."""
    chosen = vars(parser().parse_args(arguments))
    measure = MEASURES[chosen.pop("what")]
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(Path(folder), **chosen):
            print(json.dumps(line), flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; its names are those of the two `measure`s' parameters."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="How far one Redis carries."
    )
    kinds = made.add_subparsers(dest="what", required=True)
    workers = kinds.add_parser("workers", help="jobs a second by the number of workers")
    workers.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], help="workers")
    workers.add_argument("--seconds", type=float, default=10, help="of each measurement (%(default)s)")
    workers.add_argument("--milliseconds", type=float, default=20, help="that the engine sleeps a tile (20)")
    workers.add_argument("--thin", action="store_true", help="4 workers a process: consumer and ledger alone")
    queued = kinds.add_parser("queued", help="submissions a second by the length of the queue")
    queued.add_argument("--few", type=int, default=1_000, help="queued jobs (%(default)s)")
    queued.add_argument("--many", type=int, default=1_000_000, help="queued jobs (%(default)s)")
    queued.add_argument("--jobs", type=int, default=2_000, help="that one round submits (%(default)s)")
    queued.add_argument("--rounds", type=int, default=10, help="at each length (%(default)s)")
    return made


if __name__ == "__main__":
    main()
