"""Find the servers of a `make up` that runs on this machine, for a command beside it."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from shared.object_store import WORKER_PATIENCE
from shared.services import Services, from_settings
from shared.settings import Settings, read_settings

_NAME = "servers.json"
#: With one of these, the environment says which servers are meant.
_NAMING = ("REDIS_URL", "S3_ENDPOINT_URL", "OBJECT_STORE_DIR", "SECRETS_DIR")


def leave_address(data_dir: Path, environment: Mapping[str, str]) -> None:
    """Write down how the servers are found and what they were told, readable by their owner alone.

    With another bucket, model or retention than theirs a command beside them would do harm.
    """
    given = {name: value for name, value in os.environ.items() if value and _is_theirs(name)}
    path = data_dir / _NAME
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({**given, **environment}, file)


def _is_theirs(name: str) -> bool:
    return name in _NAMING or name.startswith("AWS_") or name.lower() in Settings.model_fields


def forget_address(data_dir: Path) -> None:
    """Note that they run no more."""
    (data_dir / _NAME).unlink(missing_ok=True)


def reach() -> Services:
    """Return the services of a `make up` beside this process, and say so; else the environment's."""
    if data_dir := join():
        print(f"using the servers of `make up` in {data_dir}", file=sys.stderr)
    return from_settings(read_settings(Settings), WORKER_PATIENCE)


def join() -> str | None:
    """Take the servers and settings of `make up` as this process' own, where its environment names no others.

    The data directory is that of `DATA_DIR`, also where `.env` says it, as for `make up`.

    Returns:
        The data directory that they belong to; None where the environment decides.
    """
    data_dir = Path(os.environ.get("DATA_DIR") or dotenv_values(".env").get("DATA_DIR") or ".data")
    named = {name: os.environ[name] for name in _NAMING if os.environ.get(name)}
    if not (data_dir / _NAME).exists():
        if not named:
            print(f"no `make up` runs on {data_dir}; DATA_DIR says where else to look", file=sys.stderr)
        return None
    servers = json.loads((data_dir / _NAME).read_text())
    if any(servers.get(name) != value for name, value in named.items()):
        return None
    os.environ.update(servers)
    return str(data_dir)
