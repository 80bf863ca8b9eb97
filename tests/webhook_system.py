"""A system that tells webhooks, without a model: Redis, API, worker, deliverer; and a receiver."""

import http.server
import os
import secrets
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from ops.prepare import webhook_secret
from ops.processes import Child, wait_until
from ops.servers import HOST, RedisServer, free_port
from shared.model_registry import ModelRegistry
from shared.object_store_files import FileObjectStore
from tests.factories import write_model
from tests.stack import png


@dataclass(frozen=True)
class Call:
    """One request that came to a receiver."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def webhook_id(self) -> str:
        """The id of what it tells."""
        return self.headers["webhook-id"]


class Receiver:
    """Answers by `answer`, given how many calls came before; keeps every call."""

    def __init__(self, port: int | None = None) -> None:
        self.calls: list[Call] = []
        self.answer: Callable[[int], int] = lambda number: 204
        self.location = ""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                number = len(outer.calls)
                outer.calls.append(Call(self.path, headers, body))
                status = outer.answer(number)
                try:
                    self.send_response(status)
                    self.send_header("Location", outer.location)
                    self.end_headers()
                except OSError:
                    return  # whoever asked is dead

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer((HOST, port or 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://{HOST}:{self.port}/hook?token=of-the-receiver"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()

    def expect(self, count: int) -> list[Call]:
        """Wait until so many calls have come."""
        assert wait_until(lambda: len(self.calls) >= count, 60), self.calls
        return self.calls


class WebhookSystem:
    """All of it, in one folder; each part can be killed and started again."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.secret = webhook_secret()
        redis = RedisServer(free_port(), secrets.token_hex(8), folder / "redis-data")
        FileObjectStore(folder / "objects", "histoqueue").ensure_bucket()
        ModelRegistry(FileObjectStore(folder / "objects", "histoqueue"), "lung-cnn").publish(
            write_model(folder / "model")
        )
        self.port = free_port()
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("AWS_", "S3_", "REDIS_"))
            },
            "REDIS_URL": redis.url,
            "OBJECT_STORE_DIR": str(folder / "objects"),
            "MODEL_CACHE_DIR": str(folder / "cache"),
            "WEBHOOK_SECRET": self.secret,
            "WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8",
            "WEBHOOK_RETRY_SECONDS": "1",
            "WEBHOOK_THREADS": "6",
            "WEBHOOK_THREADS_PER_HOST": "2",
            **settings,
        }
        api = [sys.executable, "-m", "gunicorn", "--config", "python:api.gunicorn_conf"]
        self.folder = folder
        self.redis = redis.child(folder / "redis.log")
        self._redis_is_ready = redis.is_ready
        self.worker = self._child("worker", ["tests.chaos.worker", "fake", "1"], environment)
        self.webhooks = self._child("webhooks", ["worker.webhooks"], environment)
        self.api = Child(
            "api", [*api, "--bind", f"{HOST}:{self.port}", "api.wsgi:app"], folder / "api.log", environment
        )
        self.http = httpx2.Client(base_url=f"http://{HOST}:{self.port}", timeout=40, trust_env=False)

    def _child(self, name: str, module: list[str], environment: dict[str, str]) -> Child:
        return Child(name, [sys.executable, "-m", *module], self.folder / f"{name}.log", environment)

    def start(self) -> None:
        """Return when a job would be done."""
        self.start_redis()
        for child in (self.worker, self.webhooks, self.api):
            child.start()
        assert wait_until(self._is_ready, 60, 0.2), self.story()

    def start_redis(self) -> None:
        """Return when it answers."""
        self.redis.start()
        assert wait_until(self._redis_is_ready, 20), self.story()

    def stop(self) -> None:
        """End all of it."""
        self.http.close()
        for child in (self.api, self.worker, self.webhooks, self.redis):
            child.stop(15)

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx2.HTTPError:
            return False

    def story(self) -> str:
        """Return what each part has said at last."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))

    def accept(self, receiver: Receiver | str | None, **options: str) -> str:
        """Submit a tile that must be accepted, and run; return where its job is."""
        url = receiver.url if isinstance(receiver, Receiver) else receiver
        params = {"cache": "false", **options, **({"webhook_url": url} if url else {})}
        answer = self.http.post(
            "/predict", content=png(), params=params, headers={"Content-Type": "image/png"}
        )
        assert answer.status_code == 202, answer.text
        return str(answer.headers["Location"])

    def finish(self, path: str) -> dict[str, Any]:
        """Wait until the job has ended."""
        answer = self.http.get(path, params={"wait": "30"})
        assert answer.status_code == 200, f"{answer.text}\n{self.story()}"
        job: dict[str, Any] = answer.json()
        return job

    def deliveries(self, path: str) -> dict[str, Any]:
        """Return what the job's webhook was told."""
        answer = self.http.get(f"{path}/deliveries")
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def states(self, path: str) -> list[str]:
        """Return where each delivery of the job stands."""
        return [item["state"] for item in self.deliveries(path)["deliveries"]]

    def reaches(self, path: str, *states: str) -> bool:
        """Wait until the deliveries stand so."""
        return wait_until(lambda: self.states(path) == list(states), 60, 0.1)
