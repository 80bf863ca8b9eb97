"""The command line of a benchmark that takes numbers alone."""

import argparse
from typing import Any


def read_numbers(module: str, description: str | None, **defaults: float) -> list[Any]:
    """Return what the command line says, in the order of `defaults`, each of the kind of its default."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default in defaults.items():
        parser.add_argument(name, type=type(default), nargs="?", default=default, metavar=name.upper())
    return list(vars(parser.parse_args()).values())
