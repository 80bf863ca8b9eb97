"""Find the servers of a `make up` that runs on this machine, for a command beside it."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from shared.object_store import WORKER_PATIENCE
from shared.services import Services, from_settings
from shared.settings import Settings, read_settings

_NAME = "servers.json"


def leave_address(data_dir: Path, environment: Mapping[str, str]) -> None:
    """Write down the variables by which the servers are found, readable by their owner alone."""
    path = data_dir / _NAME
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(dict(environment), file)


def forget_address(data_dir: Path) -> None:
    """Note that they run no more."""
    (data_dir / _NAME).unlink(missing_ok=True)


def reach() -> Services:
    """Return the services of a `make up` beside this process, and say so; else the environment's."""
    if data_dir := join():
        print(f"using the servers of `make up` in {data_dir}", file=sys.stderr)
    return from_settings(read_settings(Settings), WORKER_PATIENCE)


def join() -> str | None:
    """Take the servers of `make up` into this process' environment, where that names none itself.

    Returns:
        The data directory that they belong to; None where the environment decides.
    """
    data_dir = Path(os.environ.get("DATA_DIR") or ".data")
    given = any(
        os.environ.get(name) for name in ("REDIS_URL", "S3_ENDPOINT_URL", "OBJECT_STORE_DIR", "SECRETS_DIR")
    )
    if given or not (data_dir / _NAME).exists():
        return None
    os.environ.update(json.loads((data_dir / _NAME).read_text()))
    return str(data_dir)
