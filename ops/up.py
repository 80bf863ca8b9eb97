"""`make up`: the whole system on one machine, in the foreground, until Ctrl-C.

Settings that the environment lacks come from FILE, if there is one: `make up` names `.env`.

Redis, the object store, the API, one worker and what tells webhooks are children of this process. One that
ends is started again; when this process ends, so do they, also when it is killed.
"""

import argparse
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

from dotenv import load_dotenv
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ops.data_directory import locked, passwords
from ops.installation import forget_address, leave_address
from ops.prepare import make_bucket
from ops.processes import Child
from ops.servers import HOST, NoServer, ObjectServer, RedisServer, free_port, port_is_free
from ops.supervisor import CannotStart, Stop, Supervisor
from shared.errors import HistoQueueError, InvalidModel, NoModel, explain
from shared.object_store import REQUEST_PATIENCE, WORKER_PATIENCE
from shared.services import Services, from_settings
from shared.settings import Settings, read_settings

START_TIMEOUT_SECONDS = 30.0
#: Of a server, and of the whole: how long it may take to answer, and after how long who waits is told why it
#: does not. One of ours has answered by then, and a worker has loaded its model.
SERVER_SECONDS = (START_TIMEOUT_SECONDS, 3.0)
READY_SECONDS = (180.0, 20.0)


class NotReady(HistoQueueError):
    """What /readyz says, as far as it is there."""

    code = "NOT_READY"


class UpSettings(BaseSettings):
    """What `make up` itself is told by the environment."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    port: Annotated[int, Field(ge=1, le=65535)] = 5000
    data_dir: Path = Path(".data")
    #: Processes of the API; gunicorn itself reads it, and takes none for a number.
    web_concurrency: Annotated[int, Field(ge=1)] = 1
    #: Below this path alone the API answers; gunicorn itself reads it.
    script_name: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    #: Where given, that server is used and none is started.
    redis_url: str | None = None
    s3_endpoint_url: str | None = None
    object_store_dir: str | None = None
    #: How images and outcomes reach the folder that our own S3 server serves: straight, or through it.
    object_store: Literal["folder", "s3"] = "folder"
    #: A part of a bucket is a word of S3: with it, all goes through the server.
    s3_prefix: str = ""
    #: Where given, it signs instead of one that is made here.
    webhook_secret: SecretStr | None = None

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://{HOST}:{self.port}{self.script_name}"


def main(settings_file: str | None = None) -> int:
    """Run it all; returns the exit status."""
    if settings_file:
        try:
            load_dotenv(settings_file)
        except UnicodeDecodeError as error:
            _say(f"error: {settings_file}: expected text in UTF-8. Found: {error}")
            return 1
    settings = read_settings(UpSettings)
    read_settings(Settings)  # said here, in one line, and not by each child in its log
    supervisor = Supervisor(_say)
    _hear_signals(supervisor)
    try:
        with locked(settings.data_dir) as lock:
            supervisor.hold(lock)
            try:
                _run(settings, supervisor)
            except Stop:
                _say("stopping: the worker finishes what it runs, the rest stays in the queue")
            finally:
                supervisor.stop()
                forget_address(settings.data_dir)
    except (CannotStart, NoServer) as error:
        _say(f"error: {error}")
        return 1
    except HistoQueueError as error:
        _say(f"error: {explain(error)}")
        return 1
    except OSError as error:
        _say(f"error: {settings.data_dir} cannot be used: {error}")
        return 1
    _say("stopped")
    return 0


def _hear_signals(supervisor: Supervisor) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, supervisor.ask_to_stop)
    # `nohup` has it ignored: all is to run on when the terminal is closed.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, supervisor.ask_to_stop)


def _run(settings: UpSettings, supervisor: Supervisor) -> None:
    with _claimed(settings.port):
        _run_on_port(settings, supervisor)


def _run_on_port(settings: UpSettings, supervisor: Supervisor) -> None:
    environment = {**_start_servers(settings, supervisor), **_past_the_proxy()}
    leave_address(settings.data_dir, environment)
    os.environ.update(environment)
    shared = read_settings(Settings)
    # With little patience: one that hangs is not to hold up Ctrl-C.
    asked = from_settings(shared, REQUEST_PATIENCE)
    # They may not be children of ours: only their client knows why they do not answer.
    supervisor.wait_telling_why("the object store", lambda: _ask_store(asked), *SERVER_SECONDS)
    supervisor.wait_telling_why("Redis", asked.jobs.ping, *SERVER_SECONDS)
    _prepare_model(supervisor, from_settings(shared, WORKER_PATIENCE), shared.model_bucket is None)
    _start_clients(settings, supervisor)
    supervisor.wait_telling_why("the system", lambda: _ask_ready(settings.url), *READY_SECONDS)
    _say(f"ready: {settings.url}   (Ctrl-C ends it; research use only, not for diagnostic use)")
    while True:
        supervisor.look()
        time.sleep(0.2)


@contextmanager
def _claimed(port: int) -> Iterator[None]:
    """Keep every other `make up` from a port on which our API does not listen yet.

    It would take that one's answers for its own. Held is the same number of UDP, where nothing of ours
    listens: the kernel gives it back however this process ends.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as mark:
        try:
            is_free = port_is_free(port)
            mark.bind((HOST, port))
        except PermissionError:
            raise CannotStart(
                f"port {port} of {HOST} is not for this user. Choose one over 1023: PORT=5000 make up"
            ) from None
        except OSError:
            is_free = False
        if not is_free:
            raise CannotStart(f"port {port} of {HOST} is taken. Choose another: PORT={port + 1} make up")
        yield


def _start_servers(settings: UpSettings, supervisor: Supervisor) -> dict[str, str]:
    """Start the two servers that are not given; return the variables by which the others find them."""
    secrets = passwords(settings.data_dir / "secrets.json")
    logs = settings.data_dir / "logs"
    environment = {}
    if settings.redis_url is None:
        broker = RedisServer(free_port(), secrets["redis"], settings.data_dir.resolve() / "redis")
        supervisor.start(broker.child(logs / "redis.log"))
        _wait_for_redis(supervisor, broker)
        environment["REDIS_URL"] = broker.url
    if settings.s3_endpoint_url is None and settings.object_store_dir is None:
        store = ObjectServer(
            free_port(),
            secrets["s3_access"],
            secrets["s3_secret"],
            settings.data_dir.resolve() / "objects",
            is_shared=settings.object_store == "folder" and not settings.s3_prefix,
        )
        supervisor.start(store.child(logs / "object-store.log"))
        environment.update(store.environment())
        if store.is_shared:
            environment["OBJECT_STORE_DIR"] = str(store.folder)
    if settings.webhook_secret is None:
        environment["WEBHOOK_SECRET"] = secrets["webhook"]
    environment["WEB_CONCURRENCY"] = str(settings.web_concurrency)
    environment["MODEL_CACHE_DIR"] = str(settings.data_dir.resolve() / "model-cache")
    return environment


def _wait_for_redis(supervisor: Supervisor, broker: RedisServer) -> None:
    while True:
        try:
            supervisor.wait_for("Redis", broker.is_ready, START_TIMEOUT_SECONDS)
        except CannotStart as late:
            if broker.is_loading():
                supervisor.say("waiting for Redis: it still reads its files")
                continue
            raise CannotStart(
                f"{late}. Where that names damaged files (AOF), move {broker.folder} away and start again: "
                "what it held is rebuilt from the objects"
            ) from None
        return


def _past_the_proxy() -> dict[str, str]:
    """Return the variables that keep what our processes say to each other from a proxy of the environment."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    ours = listed if listed == "*" else f"{listed},{HOST}".lstrip(",")
    return {"no_proxy": ours, "NO_PROXY": ours}


def _prepare_model(supervisor: Supervisor, services: Services, may_publish: bool) -> None:
    """Publish the bundled model where there is none; one of another name is the operator's to publish.

    Raises:
        Stop: if a signal came before there was one.
    """
    try:
        _say(f"  {make_bucket(services, may_publish)}")
    except (NoModel, InvalidModel) as error:
        _say(f"waiting for a model: {error}")
        _say("  in another terminal: .venv/bin/python -m ops.models publish FOLDER")
        while not _has_model(services):
            supervisor.look()
            time.sleep(0.5)


def _has_model(services: Services) -> bool:
    try:
        services.models.live()
    except HistoQueueError:
        return False
    return True


def _start_clients(settings: UpSettings, supervisor: Supervisor) -> None:
    logs = settings.data_dir / "logs"
    worker = [sys.executable, "-m", "worker"]
    api = [sys.executable, "-m", "gunicorn", "--config", "python:api.gunicorn_conf"]
    api += ["--bind", f"{HOST}:{settings.port}", "api.wsgi:app"]
    webhooks = [sys.executable, "-m", "worker.webhooks"]
    supervisor.start(Child("webhooks", webhooks, logs / "webhooks.log"))
    supervisor.start(Child("worker", worker, logs / "worker.log"))
    # Asked to end rather than killed: its own children take their end from it.
    supervisor.start(Child("api", api, logs / "api.log", on_parent_death=signal.SIGTERM))


def _ask_store(services: Services) -> None:
    services.objects.ensure_bucket()
    # They may lie elsewhere: with a server that is only starting.
    services.models.versions()


def _ask_ready(url: str) -> None:
    """Raise nothing where the system is ready, else what its API says, or why that does not answer.

    Raises:
        NotReady: with every reason.
    """
    try:
        with urlopen(f"{url}/readyz", timeout=6):  # noqa: S310 - the address is ours
            return
    except HTTPError as refused:
        raise NotReady(_detail(refused)) from None
    except (OSError, HTTPException) as error:
        raise NotReady(f"the API does not answer: {error}") from None


def _detail(refused: HTTPError) -> str:
    try:
        return str(json.load(refused)["detail"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return str(refused)


def _say(line: str) -> None:
    # A closed terminal, a pipe that nobody reads, a full disk: what runs is not ended by it.
    with suppress(OSError):
        print(line, flush=True)


def _settings_file() -> str | None:
    parser = argparse.ArgumentParser(
        prog="python -m ops.up", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", metavar="FILE")
    file: str | None = parser.parse_args().file
    return file


if __name__ == "__main__":
    sys.exit(main(_settings_file()))
