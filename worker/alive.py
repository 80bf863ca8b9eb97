"""`python -m worker.alive`: exit 0 if a worker on this host has reported lately that it consumes."""

import argparse
import socket
import sys

from shared.errors import HistoQueueError
from shared.object_store import WORKER_PATIENCE
from shared.services import from_settings
from shared.settings import Settings, read_settings


def main() -> int:
    """Return the exit status, for a container's health check."""
    argparse.ArgumentParser(prog="python -m worker.alive", description=__doc__).parse_args()
    workers = from_settings(read_settings(Settings), WORKER_PATIENCE).workers
    try:
        names = [status.name for status in workers.live()]
    except HistoQueueError as error:
        print(f"unknown: {error}")
        return 1
    prefix = f"{socket.gethostname()}-"
    if any(name.startswith(prefix) for name in names):
        return 0
    print(f"Expected a report of a worker named {prefix}…, of the last seconds. Found: {names}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
