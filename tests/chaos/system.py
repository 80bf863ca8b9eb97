"""Real servers, the API and several workers, kept alive while a test harms them and their links."""

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import redis

from ops.prepare import newest_bundled_model
from ops.processes import Child, wait_until
from ops.servers import HOST, ObjectServer, RedisServer, free_port
from shared import keys
from shared.model_registry import ModelRegistry
from shared.object_store import WORKER_PATIENCE
from shared.object_store_s3 import S3ObjectStore
from tests.chaos.crashing import CRASH_AT
from tests.chaos.nursery import Nursery
from tests.chaos.proxy import Proxy
from tests.chaos.sleeping_engine import SOLO_CRASHES
from tests.factories import write_model

#: Short, so that a loss is noticed within the test.
LEASE_SECONDS = 3.0
SETTINGS = {
    "LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "ENGINE_TIMEOUT_SECONDS": "2",
    "MAX_RUN_SECONDS": "60",
    # What waits must be done within the drain, however long the run: over this, clients are sent away.
    "MAX_OPEN_JOBS": "1000",
    # Each request is to go the whole way, whatever its image.
    "CACHE_ANSWERS": "false",
    "LOG_JSON": "true",
}
#: TensorFlow takes longer than an engine that sleeps, and longer still on a machine that is busy.
REAL_SETTINGS = {"ENGINE_TIMEOUT_SECONDS": "15", "ENGINE_THREADS": "1"}


@dataclass(frozen=True)
class System:
    """A running system: where its API is, its processes, and the links from its clients to its servers."""

    url: str
    nursery: Nursery
    workers: tuple[str, ...]
    redis_link: Proxy
    store_link: Proxy
    #: The same Redis without the link that is harmed.
    redis_url: str
    redis: redis.Redis
    store: S3ObjectStore
    #: The point whose name is written here ends the process that passes it next.
    crash_file: Path
    #: Where the engines write down that they are about to die of an image that is alone.
    solo_crashes: Path

    def is_ready(self) -> bool:
        """Ask the API."""
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=6, trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False

    def has_engine(self, worker: str) -> bool:
        """Tell whether a worker has got as far as to start its engine."""
        return bool(self.nursery.below(worker))

    def log(self, name: str) -> Path:
        """Return where a child writes what it says."""
        return self.crash_file.parent / "logs" / f"{name}.log"

    def open_jobs(self) -> set[str]:
        """Return the ids that the ledger takes for open."""
        return {str(job_id) for job_id in self.redis.zrange(keys.OPEN, 0, -1)}

    def known_jobs(self) -> set[str]:
        """Return the ids of every job that the ledger has a record of."""
        found = self.redis.scan_iter(match=f"{keys.JOB}*", count=1000)
        return {str(key).removeprefix(keys.JOB) for key in found}


@contextmanager
def running_system(
    folder: Path,
    workers: int,
    milliseconds_a_tile: float,
    engine: str = "fake",
    settings: Mapping[str, str] | None = None,
) -> Iterator[System]:
    """Start everything in `folder`; `engine` is `real`, or `fake`: no model, and as slow as is said."""
    redis_server = RedisServer(free_port(), secrets.token_hex(8), folder / "redis")
    store_server = ObjectServer(free_port(), "key", secrets.token_hex(8), folder / "objects")
    direct = redis.Redis.from_url(redis_server.url, decode_responses=True, socket_timeout=20)
    port, logs = free_port(), folder / "logs"
    names = tuple(f"worker-{number}" for number in range(workers))
    with ExitStack() as stack:
        stack.callback(direct.close)
        redis_link, store_link = (
            stack.enter_context(Proxy(server.port)) for server in (redis_server, store_server)
        )
        environment = {
            **os.environ,
            **SETTINGS,
            **(REAL_SETTINGS if engine == "real" else {}),
            **store_server.environment(),
            "S3_ENDPOINT_URL": f"http://{HOST}:{store_link.port}",
            "REDIS_URL": redis_server.url.replace(f":{redis_server.port}/", f":{redis_link.port}/"),
            "MODEL_CACHE_DIR": str(folder / "model-cache"),
            CRASH_AT: str(folder / "crash-at"),
            SOLO_CRASHES: str(folder / "solo-crashes"),
            **(settings or {}),
        }
        serve = [sys.executable, "-m", "gunicorn", "--config", "python:api.gunicorn_conf"]
        serve += ["--bind", f"{HOST}:{port}", "tests.chaos.wsgi:app"]
        work = [sys.executable, "-m", "tests.chaos.worker", engine, str(milliseconds_a_tile)]
        children = {
            "redis": redis_server.child(logs / "redis.log"),
            "store": store_server.child(logs / "store.log"),
            "api": Child("api", serve, logs / "api.log", environment),
            **{name: Child(name, work, logs / f"{name}.log", environment) for name in names},
        }
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in store_server.environment().items():
            patch.setenv(name, value)
        # None was started yet: the nursery takes them for dead, and starts them.
        system = System(
            url=f"http://{HOST}:{port}",
            nursery=stack.enter_context(Nursery(folder, children)),
            workers=names,
            redis_link=redis_link,
            store_link=store_link,
            redis_url=redis_server.url,
            redis=direct,
            store=S3ObjectStore("histoqueue", store_server.url, "us-east-1", WORKER_PATIENCE),
            crash_file=folder / "crash-at",
            solo_crashes=folder / "solo-crashes",
        )
        assert wait_until(redis_server.is_ready, 20)
        assert wait_until(lambda: store_server.is_ready("histoqueue"), 20)
        model = newest_bundled_model() if engine == "real" else write_model(folder / "model")
        ModelRegistry(system.store, "lung-cnn").publish(model)
        assert wait_until(system.is_ready, 120), system.nursery.story()
        yield system
