"""Where a tile's time goes: the real code against a real Redis and object store, one tile after the other.

All of it runs in one thread, so that CPU time, which holds on a busy machine, can be booked to calls.
Not in it: gunicorn's and Celery's own work, the switching of threads, and what waits for what.
"""

import argparse
import secrets
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from api import create_app
from benchmarks.models import with_converted_networks
from benchmarks.processes import read_usage
from benchmarks.systems import variables
from benchmarks.tiles import gather_tiles
from ops.prepare import make_bucket, newest_bundled_model
from ops.processes import Child, wait_until
from ops.servers import ObjectServer, RedisServer, free_port
from shared.logs import configure_logs
from shared.manifest import MANIFEST_NAME, parse_manifest
from shared.object_store import REQUEST_PATIENCE
from shared.services import Services, from_settings
from shared.settings import Settings
from worker.breaker import CrashBreaker
from worker.engine import pipeline as engine
from worker.engine.pipeline import Pipeline
from worker.engine.runtime import REFERENCE, Order, load
from worker.leases import LeaseKeeper
from worker.reaper import archive_once
from worker.tasks import JobRunner, RunLimits

HERE = Path(__file__).parent
_BATCH = 8
#: Names in `worker.engine.pipeline` of what it does with an image beside asking the model.
_ENGINE_STEPS = ("decode_picture", "resize_for_measuring", "measure_view", "preprocess_measured", "calibrate")


@dataclass
class Spent:
    """What one sort of call took, all together."""

    calls: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


class Book:
    """Books the time of calls by name; a call inside another is booked to itself alone."""

    def __init__(
        self, cpu: Callable[[], float] = time.thread_time, wall: Callable[[], float] = time.perf_counter
    ) -> None:
        self.spent: dict[str, Spent] = defaultdict(Spent)
        self._cpu, self._wall = cpu, wall
        self._inner = [[0.0, 0.0]]

    @contextmanager
    def entry(self, name: str) -> Iterator[None]:
        """Book the block under this name."""
        self._inner.append([0.0, 0.0])
        cpu, wall = self._cpu(), self._wall()
        try:
            yield
        finally:
            cpu, wall = self._cpu() - cpu, self._wall() - wall
            inside_cpu, inside_wall = self._inner.pop()
            self._inner[-1][0] += cpu
            self._inner[-1][1] += wall
            spent = self.spent[name]
            spent.calls += 1
            spent.cpu_seconds += cpu - inside_cpu
            spent.wall_seconds += wall - inside_wall

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with each of its calls booked."""

        def booked(*args: Any, **kwargs: Any) -> Any:
            with self.entry(name):
                return function(*args, **kwargs)

        return booked


class Timed:
    """A port whose every call is booked under the port's name and its own."""

    def __init__(self, port: object, name: str, book: Book) -> None:
        self._port, self._name, self._book = port, name, book

    def __getattr__(self, method: str) -> Any:
        return self._book.around(f"{self._name}.{method}", getattr(self._port, method))


class InlineExecutor(Executor):
    """Runs what it is given in the caller's own thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Return a future that is done."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class InlineBatcher:
    """Runs the engine's code in the caller's own thread; answers for a whole micro-batch, booked once."""

    def __init__(self, run: Callable[[Sequence[bytes]], list[Any]]) -> None:
        self._run = run

    def submit(self, image: bytes, *_: Any) -> "Future[Any]":
        """Return a future that is done."""
        future: Future[Any] = Future()
        future.set_result(self._run([image])[0])
        return future


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table for each part."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tiles", type=int, default=200)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--runtime", default="tensorflow")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=HERE / ".cache")
    options = parser.parse_args(arguments)
    model = newest_bundled_model()
    paths = gather_tiles(options.size, 24, model, options.data, options.cache)
    images = [path.read_bytes() for path in paths]
    configure_logs("WARNING", False)
    book = Book()
    with TemporaryDirectory(prefix="hq-stages-") as folder:
        servers = measure_stack(images, options.tiles, Path(folder), book)
    print_table(f"the stack, {options.size} px", book, options.tiles, servers)
    if options.runtime != REFERENCE:
        model = with_converted_networks(model, options.cache)
    book = Book(cpu=time.process_time)  # TensorFlow computes in threads of its own
    measure_engine(images, options.tiles, model, options.runtime, book)
    print_table(
        f"the engine by {options.runtime}, {options.size} px, micro-batches of 8", book, options.tiles, {}
    )
    return 0


def measure_stack(images: Sequence[bytes], tiles: int, folder: Path, book: Book) -> dict[str, float]:
    """Submit, run without an engine, and fetch so many tiles; return the servers' CPU seconds."""
    broker = RedisServer(free_port(), secrets.token_hex(16), folder / "redis")
    objects = ObjectServer(free_port(), secrets.token_hex(8), secrets.token_hex(16), folder / "objects")
    children = [broker.child(folder / "redis.log"), objects.child(folder / "objects.log")]
    for child in children:
        child.start()
    try:
        with variables({**objects.environment(), "REDIS_URL": broker.url}):
            if not wait_until(lambda: broker.is_ready() and objects.is_ready("histoqueue"), 30):
                raise RuntimeError("Expected Redis and an object store. They did not start.")
            # The same tiles come again and again, and each is to be computed.
            settings = Settings(cache_answers=False)
            services = from_settings(settings, REQUEST_PATIENCE)
            make_bucket(services)
            before = _cpu_of(children)
            _send_tiles(images, tiles, services, settings, book)
            return {name: used - before[name] for name, used in _cpu_of(children).items()}
    finally:
        for child in reversed(children):
            child.stop(5)


def _cpu_of(children: Sequence[Child]) -> dict[str, float]:
    usages = {child.name: read_usage(child.pid) for child in children}
    return {name: usage.cpu_seconds if usage else 0.0 for name, usage in usages.items()}


def _send_tiles(
    images: Sequence[bytes], tiles: int, services: Services, settings: Settings, book: Book
) -> None:
    outcome = {"result": {"class": "lung_n", "probabilities": {"lung_n": 1.0}}, "timings_ms": {"decode": 1.0}}
    timed: Any = replace(
        services,
        jobs=Timed(services.jobs, "ledger", book),
        objects=Timed(services.objects, "objects", book),
        queue=Timed(services.queue, "queue", book),
    )
    client = create_app(timed, settings).test_client()
    batcher: Any = InlineBatcher(lambda images: [outcome for _ in images])
    runner = JobRunner(
        jobs=timed.jobs,
        objects=timed.objects,
        batcher=batcher,
        leases=LeaseKeeper(services.jobs, settings.lease_seconds, lambda: False),
        breaker=CrashBreaker(),
        limits=RunLimits(settings.lease_seconds, settings.max_run_seconds),
        pool=InlineExecutor(),
    )
    submit = book.around("API: the rest of POST /predict", client.post)
    fetch = book.around("API: the rest of GET /result", client.get)
    run = book.around("worker: the rest of a job", runner.run)
    for number in range(-10, tiles):
        if number == 0:
            book.spent.clear()  # connections are open and scripts are loaded by now
        answer = submit("/predict", data=images[number % len(images)], content_type="image/jpeg")
        place = answer.headers["Location"]
        run(place.rpartition("/")[2])
        fetch(place)
    with ThreadPoolExecutor(1) as pool:
        book.around("worker: archive", archive_once)(services.jobs, services.objects, pool)


def measure_engine(images: Sequence[bytes], tiles: int, model: Path, runtime: str, book: Book) -> None:
    """Run micro-batches through the pipeline with each of its steps booked."""
    manifest = parse_manifest((model / MANIFEST_NAME).read_bytes())
    loaded = load(runtime, Order(model, manifest, threads=1, buckets=(1, _BATCH)))
    steps = {name: getattr(engine, name) for name in _ENGINE_STEPS}
    predictor = Timed(loaded.predictor, "model", book)
    for name, step in steps.items():
        setattr(engine, name, book.around(name, step))
    try:
        pipeline: Any = Pipeline(predictor, manifest, 4096 * 4096)
        run = book.around("the rest of the pipeline", pipeline.run)
        for start in range(0, tiles, _BATCH):
            run([images[(start + step) % len(images)] for step in range(_BATCH)])
    finally:
        for name, step in steps.items():
            setattr(engine, name, step)


def print_table(title: str, book: Book, tiles: int, servers: dict[str, float]) -> None:
    """Print calls, CPU and wall milliseconds a tile, the dearest first."""
    print(f"\n| {title} | calls a tile | CPU ms a tile | wall ms a tile |\n|---|---:|---:|---:|")
    rows = sorted(book.spent.items(), key=lambda item: -item[1].cpu_seconds)
    for name, spent in rows:
        figures = (spent.calls, spent.cpu_seconds * 1000, spent.wall_seconds * 1000)
        print(f"| {name} | " + " | ".join(f"{figure / tiles:.2f}" for figure in figures) + " |")
    for name, used in servers.items():
        print(f"| the server: {name} | | {used * 1000 / tiles:.2f} | |")
    total = sum(spent.cpu_seconds for _, spent in rows) + sum(servers.values())
    print(f"| together | | {total * 1000 / tiles:.2f} | |")


if __name__ == "__main__":
    sys.exit(main())
