"""Real servers, the API and several workers, kept alive while a test harms them."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from ops.processes import Child, wait_until
from ops.servers import HOST, ObjectServer, RedisServer, free_port
from shared.model_registry import ModelRegistry
from shared.object_store import WORKER_PATIENCE, S3ObjectStore
from tests.chaos.nursery import Nursery
from tests.factories import write_model

#: Short, so that a loss is noticed within the test.
SETTINGS = {"LEASE_SECONDS": "3", "ENGINE_TIMEOUT_SECONDS": "2", "MAX_RUN_SECONDS": "60", "LOG_JSON": "true"}


@dataclass(frozen=True)
class System:
    """A running system: where its API and its ledger are, and its processes."""

    url: str
    nursery: Nursery
    redis_url: str

    def is_ready(self) -> bool:
        """Ask the API."""
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=6, trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False


@contextmanager
def running_system(folder: Path, workers: int, milliseconds_a_tile: float) -> Iterator[System]:
    """Start everything in `folder`; the workers' engines have no model, and take their time all the same."""
    redis = RedisServer(free_port(), secrets.token_hex(8), folder / "redis")
    store = ObjectServer(free_port(), "key", secrets.token_hex(8), folder / "objects")
    port, logs = free_port(), folder / "logs"
    environment = {
        **os.environ,
        **SETTINGS,
        **store.environment(),
        "REDIS_URL": redis.url,
        "MODEL_CACHE_DIR": str(folder / "model-cache"),
    }
    api = [sys.executable, "-m", "gunicorn", "--config", "python:api.gunicorn_conf"]
    worker = [sys.executable, "-m", "tests.chaos.worker", str(milliseconds_a_tile)]
    servers = {"redis": redis.child(logs / "redis.log"), "store": store.child(logs / "store.log")}
    clients = {
        "api": Child("api", [*api, "--bind", f"{HOST}:{port}", "api.wsgi:app"], logs / "api.log", environment)
    }
    for number in range(workers):
        name = f"worker-{number}"
        clients[name] = Child(name, worker, logs / f"{name}.log", environment)
    system = System(f"http://{HOST}:{port}", Nursery(folder, {**servers, **clients}), redis.url)
    for child in servers.values():
        child.start()
    with system.nursery, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment().items():
            patch.setenv(name, value)
        assert wait_until(redis.is_ready, 20)
        assert wait_until(lambda: store.is_ready("histoqueue"), 20)
        bucket = S3ObjectStore("histoqueue", store.url, "us-east-1", WORKER_PATIENCE)
        ModelRegistry(bucket, "lung-cnn").publish(write_model(folder / "model"))
        # The others were never started: the nursery takes them for dead, and starts them.
        assert wait_until(system.is_ready, 60), system.nursery.story()
        yield system
