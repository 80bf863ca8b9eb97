"""What `make up` keeps in its data directory for itself: a lock, and the passwords of its servers."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from ops.prepare import webhook_secret
from ops.supervisor import CannotStart

_PASSWORDS = TypeAdapter(dict[str, Annotated[str, Field(pattern=r"^[!-~]+$")]])


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a data directory for this process and those that hold the lock's descriptor, too."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"another `make up` runs on {folder}, or what it started is still ending. "
                "End it, or choose another: DATA_DIR=other make up"
            ) from None
        yield file.fileno()


def passwords(path: Path) -> dict[str, str]:
    """Return the passwords of this data directory, made at its first start, readable by its owner alone."""
    try:
        stored = _PASSWORDS.validate_json(path.read_bytes()) if path.exists() else {}
    except ValidationError:
        raise CannotStart(
            f"expected passwords in {path}. Found: something else. Remove it, and new ones are made; what "
            "receives webhooks then needs the new secret"
        ) from None
    made = {name: secrets.token_hex(24) for name in ("redis", "s3_access", "s3_secret")}
    # What a data directory of an earlier version lacks is added.
    known = {**made, "webhook": webhook_secret(), **stored}
    if known != stored:
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(known, file)
        new.replace(path)
    return known
