"""The whole system, as `make up` runs it, on free ports and in a folder of its own."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil
from PIL import Image

from ops.processes import die_with_parent, wait_until
from ops.servers import free_port
from training.synthetic import draw_tile

ROOT = Path(__file__).resolve().parents[1]
#: Short, so that a lost worker is noticed while a test waits; and each tile goes the whole way.
QUICK = {"LEASE_SECONDS": "4", "ENGINE_TIMEOUT_SECONDS": "4", "CACHE_ANSWERS": "false"}


@dataclass
class Stack:
    """One `make up` and what a client and an operator see of it."""

    data: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        """Start, and wait for the line that says ready."""
        self.started_at = time.monotonic()
        self.log = self.data / "up.log"
        self.data.mkdir(exist_ok=True)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "S3_", "OBJECT_", "REDIS_"))  # another fixture's servers
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.up"],
                cwd=ROOT,
                env={
                    **inherited,
                    "PORT": str(self.port),
                    "DATA_DIR": str(self.data / "data"),
                    **QUICK,
                    **self.environment,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                # A run of the tests that is killed leaves no system behind.
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - it takes no lock
            )
        ready = wait_until(lambda: self.says(f"ready: {self.url}") or not self.is_running, 180)
        assert ready, self.story()
        assert self.is_running, self.story()
        self.client = httpx2.Client(base_url=self.url, timeout=40, trust_env=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all of it, whatever happened."""
        self.client.close()
        left = self.processes()
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            for process in [*left, *self.processes()]:
                if process.is_running():
                    process.kill()
        if error is not None:
            print(self.story())

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """The supervisor has not ended."""
        return self.process.poll() is None

    def says(self, text: str) -> bool:
        """Tell whether the supervisor has printed this."""
        return text in self.log.read_text()

    def story(self) -> str:
        """Return what the supervisor and each child have said at last."""
        logs = sorted((self.data / "data" / "logs").glob("*.log"))
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in [self.log, *logs]
        )

    def processes(self) -> list[psutil.Process]:
        """Return every process below the supervisor."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def pid_of(self, name: str) -> int:
        """Return the id of a child as the supervisor last printed it."""
        started = re.findall(rf"^ *{name} (?:runs again,)? *pid (\d+)", self.log.read_text(), re.MULTILINE)
        return int(started[-1])

    def engine(self) -> psutil.Process:
        """Return the engine process of the worker, which there is soon after a start."""
        found: list[psutil.Process] = []

        def is_there() -> bool:
            found[:] = [item for item in self.processes() if "worker.engine" in item.cmdline()]
            return bool(found)

        assert wait_until(is_there, 60), self.story()
        return found[0]

    def submit(self, image: bytes, **headers: str) -> httpx2.Response:
        """Send one tile as it is."""
        return self.client.post("/predict", content=image, headers={"Content-Type": "image/png", **headers})

    def accept(self, image: bytes, **headers: str) -> str:
        """Send one tile that must be accepted; return where its job is."""
        answer = self.submit(image, **headers)
        assert answer.status_code == 202, f"{answer.text}\n{self.story()}"
        return str(answer.headers["Location"])

    def finish(self, path: str, timeout_seconds: float = 60) -> dict[str, Any]:
        """Wait until a job has ended; return it."""
        end = time.monotonic() + timeout_seconds
        while time.monotonic() < end:
            try:
                answer = self.client.get(path, params={"wait": "10"})
            except httpx2.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                job: dict[str, Any] = answer.json()
                return job
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 503:
                time.sleep(0.2)
        raise AssertionError(f"{path} did not end within {timeout_seconds} s\n{self.story()}")


def png(seed: int = 0) -> bytes:
    """Return a drawn tile as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(draw_tile(seed)).save(file, "PNG")
    return file.getvalue()
