"""Real servers, one API and several workers as processes that a test may harm, and that come back."""

import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from ops.processes import Child, wait_until
from ops.servers import HOST, ObjectServer, RedisServer, free_port
from shared.model_registry import ModelRegistry
from shared.object_store import WORKER_PATIENCE, S3ObjectStore
from tests.factories import write_model

#: A child that ended runs again after this long, as a container would.
RESTART_SECONDS = 0.3
#: Short, so that a loss is noticed within the test.
SETTINGS = {"LEASE_SECONDS": "3", "ENGINE_TIMEOUT_SECONDS": "2", "MAX_RUN_SECONDS": "60", "LOG_JSON": "true"}


class System:
    """The servers by name; each is started again when it ends, until the system stops."""

    def __init__(self, folder: Path, workers: int, milliseconds_a_tile: float) -> None:
        self._redis = RedisServer(free_port(), secrets.token_hex(8), folder / "redis")
        self._store = ObjectServer(free_port(), "key", secrets.token_hex(8), folder / "objects")
        self.port = free_port()
        logs = folder / "logs"
        environment = {
            **os.environ,
            **SETTINGS,
            **self._store.environment(),
            "REDIS_URL": self._redis.url,
            "MODEL_CACHE_DIR": str(folder / "model-cache"),
        }
        api = [sys.executable, "-m", "gunicorn", "--config", "python:api.gunicorn_conf"]
        worker = [sys.executable, "-m", "tests.chaos.worker", str(milliseconds_a_tile)]
        self.servers = {
            "redis": self._redis.child(logs / "redis.log"),
            "store": self._store.child(logs / "store.log"),
        }
        self.api = Child(
            "api", [*api, "--bind", f"{HOST}:{self.port}", "api.wsgi:app"], logs / "api.log", environment
        )
        self.workers = {
            f"worker-{number}": Child(f"worker-{number}", worker, logs / f"worker-{number}.log", environment)
            for number in range(workers)
        }
        self.children = {**self.servers, "api": self.api, **self.workers}
        self._folder = folder
        self._stopped = threading.Event()
        #: Held while children are started or ended: one thread at a time makes processes.
        self._lock = threading.Lock()
        self._nurse = threading.Thread(target=self._restart_the_dead, daemon=True)

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Start all of it, and wait until it is ready."""
        for child in self.servers.values():
            child.start()
        assert wait_until(self._redis.is_ready, 20)
        os.environ.update(self._store.environment())
        assert wait_until(lambda: self._store.is_ready("histoqueue"), 20)
        bucket = S3ObjectStore("histoqueue", self._store.url, "us-east-1", WORKER_PATIENCE)
        ModelRegistry(bucket, "lung-cnn").publish(write_model(self._folder / "model"))
        self.api.start()
        for child in self.workers.values():
            child.start()
        self._nurse.start()
        assert wait_until(self.is_ready, 60), self.story()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all of it."""
        self._stopped.set()
        self._nurse.join()
        for child in self.children.values():
            child.send(signal.SIGCONT)
            child.kill()

    def is_ready(self) -> bool:
        """Ask the API."""
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=6, trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False

    def signal(self, name: str, number: int) -> None:
        """Harm one child."""
        with self._lock:
            self.children[name].send(number)

    def signal_engine(self, name: str, number: int) -> None:
        """Harm the engine of one worker."""
        with self._lock:
            pid = self.workers[name].pid
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                others = [
                    int(child)
                    for task in Path(f"/proc/{pid}/task").iterdir()
                    for child in (task / "children").read_text().split()
                ]
                for engine in {*map(int, children), *others}:
                    os.kill(engine, number)
            except (OSError, ValueError):
                return  # it has just ended

    def story(self) -> str:
        """Return the end of every log."""
        logs = sorted((self._folder / "logs").glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in logs)

    def _restart_the_dead(self) -> None:
        ended: dict[str, float] = {}
        while not self._stopped.wait(0.05):
            for name, child in self.children.items():
                if child.is_running:
                    ended.pop(name, None)
                elif time.monotonic() - ended.setdefault(name, time.monotonic()) > RESTART_SECONDS:
                    with self._lock:
                        child.start()
