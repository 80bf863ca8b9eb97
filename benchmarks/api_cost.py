"""What the HTTP API itself costs: `python -m benchmarks.api_cost [REQUESTS]`.

Starts Redis, the object store, one API process on one core, and no worker; whatever is not the API's own does
not count. Prints, a line each: requests a second and core (the reciprocal of the CPU seconds that the kernel
books to the API for one request) for submissions, cached answers and reading results; how fast `/healthz`
answers while 200 requests wait for a job; and the memory before and after REQUESTS mixed requests (100,000
unless given).
"""

import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import local

from benchmarks.arguments import read_numbers
from benchmarks.processes import Watch, tree
from ops.prepare import newest_bundled_model
from ops.processes import Child, wait_until
from ops.servers import HOST, ObjectServer, RedisServer, free_port
from shared.job_store import Ending
from shared.object_store import Patience
from shared.services import Services, from_settings
from shared.settings import Settings
from tests.api_server import RESULT
from tests.factories import encoded
from tests.factories import tile as drawn_tile

CLIENTS = 8
SUBMISSIONS = 3_000
READS = 6_000
WAITERS = 200
PROBES = 200
#: Runs a module as `python -m` does, on the last core alone.
_ON_ONE_CORE = """
import os, runpy, sys
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
BUCKET = "histoqueue"
MEBIBYTE = 2**20


class Api:
    """One API process and what stands behind it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        redis = RedisServer(free_port(), "for-this-run", folder / "redis")
        objects = ObjectServer(free_port(), "key", "secret-of-this-run", folder / "objects")
        self.port = free_port()
        ours = {**objects.environment(), "REDIS_URL": redis.url, "S3_BUCKET": BUCKET, "LOG_LEVEL": "WARNING"}
        os.environ.update({**ours, "MAX_OPEN_JOBS": "10000000"})
        gunicorn = [
            "gunicorn",
            "-c",
            "python:api.gunicorn_conf",
            "--bind",
            f"{HOST}:{self.port}",
            "api.wsgi:app",
        ]
        command = [sys.executable, "-c", _ON_ONE_CORE, *gunicorn]
        servers = [redis.child(folder / "redis.log"), objects.child(folder / "objects.log")]
        self._child = Child("api", command, folder / "api.log")
        for child in servers:
            child.start()
            stack.callback(child.stop, 10)
        if not (wait_until(redis.is_ready, 20) and wait_until(lambda: objects.is_ready(BUCKET), 20)):
            raise RuntimeError("Expected Redis and the object store to start. See their logs.")
        self.services: Services = from_settings(Settings(), Patience(2, 5, 2))
        self.services.models.publish(newest_bundled_model())
        self._child.start()
        stack.callback(self._child.stop, 10)
        self._mine = local()
        if not wait_until(self._answers, 30):
            raise RuntimeError(self._child.log.read_text())

    def watched(self) -> Watch:
        """Watch the API's own processes."""
        return Watch(lambda: [self._child.pid or 0], time.perf_counter)

    def resident_mib(self) -> float:
        """Return what its processes hold in memory."""
        return sum(usage.rss_bytes for usage in tree(self._child.pid or 0)) / MEBIBYTE

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send one request over this thread's own connection, which is kept."""
        if not hasattr(self._mine, "connection"):
            self._mine.connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            return self._exchange(method, path, body)
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            # It lay idle between two measurements, and the server has closed it.
            self._mine.connection.close()
            return self._exchange(method, path, body)

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection: http.client.HTTPConnection = self._mine.connection
        connection.request(method, path, body, {"Content-Type": "image/jpeg"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/healthz")[0] == 200
        except OSError:
            self._mine.connection.close()
            return False


def main(requests: int) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        api = Api(Path(stack.enter_context(tempfile.TemporaryDirectory())), stack)
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        tile = tile_of_12_kb()
        job_id = submit(api, tile)
        finish(api.services, job_id)
        read = f"/result/{job_id}"
        for what, count, call in (
            ("submissions", SUBMISSIONS, lambda: submit(api, tile)),
            ("cached answers", SUBMISSIONS, lambda: submit_known(api, tile)),
            ("result reads", READS, lambda: api.ask("GET", read)),
        ):
            say(what, **cost_of(api, pool, call, count))
        say("waiting requests", **healthz_beside_waiters(api, submit(api, tile)))
        before = api.resident_mib()
        calls = [lambda: submit(api, tile), *[lambda: api.ask("GET", read)] * 9]
        list(pool.map(lambda number: calls[number % len(calls)](), range(requests)))
        say("memory", requests=requests, mib_before=round(before, 1), mib_after=round(api.resident_mib(), 1))


def tile_of_12_kb() -> bytes:
    """Return a drawn JPEG of 224 x 224 pixels with as many bytes as a real tile has."""
    tile = encoded(drawn_tile(224, 224), "JPEG", quality=75)
    if not 9_000 < len(tile) < 15_000:
        raise ValueError(f"Expected a tile of about 12 kB. Drew: {len(tile)} bytes")
    return tile


def submit(api: Api, tile: bytes) -> str:
    """Submit a tile; return its job's id."""
    return _post(api, "/predict?cache=false", tile, 202)


def submit_known(api: Api, tile: bytes) -> str:
    """Submit a tile that was answered before; return its job's id."""
    return _post(api, "/predict", tile, 200)


def _post(api: Api, path: str, tile: bytes, expected: int) -> str:
    status, body = api.ask("POST", path, tile)
    if status != expected:
        raise RuntimeError(f"Expected {expected}. Received: {status} {body[:200]!r}")
    return str(json.loads(body)["id"])


def finish(services: Services, job_id: str) -> None:
    """Do what a worker does when it has an answer."""
    job = services.jobs.claim_all({job_id: "token"}, 60, 60)[job_id]
    timings = {"fetch": 1.0, "decode": 1.0, "inference": 9.0}
    services.jobs.end_all([Ending(job_id, "token", timings, RESULT, answer_key=job.spec.answer_key)])


def cost_of(api: Api, pool: ThreadPoolExecutor, call: Callable[[], object], count: int) -> dict[str, float]:
    """Make a call so many times; return what it cost."""
    list(pool.map(lambda _: call(), range(count // 10)))  # warm
    with api.watched() as watch:
        list(pool.map(lambda _: call(), range(count)))
    cost = watch.cost()
    used = sum(cost.cpu_seconds.values())
    return {
        "per_second_and_core": round(count / used),
        "per_second": round(count / cost.seconds),
        "core_ms_each": round(1000 * used / count, 3),
    }


def healthz_beside_waiters(api: Api, open_job: str) -> dict[str, float]:
    """Park requests on a job that does not end; return how long `/healthz` takes beside them."""
    parked = [http.client.HTTPConnection(HOST, api.port, timeout=60) for _ in range(WAITERS)]
    for connection in parked:
        connection.request("GET", f"/result/{open_job}?wait=30")
    time.sleep(2)
    seconds = []
    for _ in range(PROBES):
        began = time.perf_counter()
        api.ask("GET", "/healthz")
        seconds.append(time.perf_counter() - began)
        time.sleep(0.01)
    for connection in parked:
        connection.close()
    ordered = sorted(seconds)
    return {
        "parked": WAITERS,
        "healthz_ms_median": round(1000 * statistics.median(ordered), 2),
        "healthz_ms_p99": round(1000 * ordered[int(0.99 * len(ordered))], 2),
    }


def say(what: str, **figures: float) -> None:
    """Print one line."""
    print(json.dumps({"what": what, **figures}), flush=True)


if __name__ == "__main__":
    main(*read_numbers("api_cost", __doc__, requests=100_000))
