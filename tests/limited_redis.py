"""The shipped list of rights, given to a user of a test's Redis."""

from pathlib import Path
from urllib.parse import urlsplit

import redis

USERS_FILE = Path(__file__).resolve().parents[1] / "deploy/redis/users.acl"
USER = "histoqueue"
PASSWORD = "of the limited user"  # has to be percent-encoded in an address


def rules() -> list[str]:
    """Return what `deploy/redis/users.acl` allows the program, without its password."""
    (line,) = [line for line in USERS_FILE.read_text().splitlines() if line.startswith(f"user {USER} ")]
    words = line.split()[2:]
    assert "#PASSWORD_SHA256" in words
    return [word for word in words if word != "#PASSWORD_SHA256"]


def limit(admin: redis.Redis, url: str) -> str:
    """Make the user at the server of `admin`; return its address in place of `url`."""
    admin.execute_command("ACL", "SETUSER", USER, "reset", f">{PASSWORD}", *rules())
    parts = urlsplit(url)
    return f"redis://{USER}:{PASSWORD.replace(' ', '%20')}@{parts.hostname}:{parts.port}{parts.path}"


def denials(admin: redis.Redis) -> list[str]:
    """Return what the server has refused the user since `ACL LOG RESET`, as 'reason: object'."""
    entries = admin.execute_command("ACL", "LOG")
    found = []
    for entry in entries:
        items = entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
        if items["username"] == USER:
            found.append(f"{items['reason']}: {items['object']}")
    return found
