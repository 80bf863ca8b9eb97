"""One project of containers, as `docker compose` runs it, and its API."""

import io
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from training.synthetic import draw_tile

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "histoqueue-test"


class Compose:
    """One project of containers, and its API."""

    def __init__(self, port: int) -> None:
        self._environment = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "PORT": str(port)}
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=40, trust_env=False)

    @contextmanager
    def set(self, **variables: str) -> Iterator[None]:
        """Have these variables of compose's file for a while; what runs is changed by the next `up`."""
        before = self._environment
        self._environment = before | variables
        try:
            yield
        finally:
            self._environment = before

    def run(self, *arguments: str, may_fail: bool = False) -> str:
        """Run a compose command; its output is the error where it fails."""
        done = self._call(arguments, seconds=600)
        assert may_fail or done.returncode == 0, (
            f"{done.returncode}: {arguments}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def fails(self, *arguments: str) -> str:
        """Run a compose command that cannot work; return what it says."""
        done = self._call(arguments, seconds=120)
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

    def _call(self, arguments: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def has_gpu(self) -> bool:
        """Tell whether this engine can give a container a graphics card."""
        return '"nvidia"' in docker("info", "--format", "{{json .Runtimes}}")

    def up(self, workers: int = 1) -> None:
        """Start what does not run, and wait until all of it is healthy."""
        self.run("up", "--detach", "--wait", "--wait-timeout", "120", "--scale", f"worker={workers}")

    def accept(self, number: int) -> str:
        """Submit a drawn tile until it is accepted; return where its job is."""
        file = io.BytesIO()
        Image.fromarray(draw_tile(number)).save(file, "PNG")
        for _ in range(150):
            try:
                answer = self.http.post(
                    "/predict",
                    content=file.getvalue(),
                    headers={"Content-Type": "image/png", "Idempotency-Key": f"{PROJECT}-{number}"},
                )
            except httpx2.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code in (200, 202):
                return str(answer.headers["Location"])
            assert answer.status_code in (429, 503), answer.text
            time.sleep(0.2)
        raise AssertionError("never accepted")

    def finish(self, path: str) -> dict[str, Any]:
        """Wait until a job has ended."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            answer = self.http.get(path, params={"wait": "10"})
            if answer.status_code == 200:
                job: dict[str, Any] = answer.json()
                return job
            time.sleep(0.2)
        raise AssertionError(f"{path} did not end\n{self.run('logs', '--tail', '50')}")

    def all_succeed(self, numbers: range, meanwhile: Any = None) -> list[str]:
        """Submit tiles from four threads, do something in the middle, and see every one of them end well."""
        with ThreadPoolExecutor(5) as pool:
            paths = [pool.submit(self.accept, number) for number in numbers]
            if meanwhile:
                meanwhile()
            found = [path.result() for path in paths]
        assert {self.finish(path)["status"] for path in found} == {"succeeded"}
        return found

    def beside(self, service: str, *options: str) -> "Container":
        """Return a second container of a service, with options of `docker compose run`; not started yet."""
        return Container(self, service, options)


class Container:
    """One container that runs as long as the `with` block does."""

    def __init__(self, project: Compose, service: str, options: tuple[str, ...]) -> None:
        self._project, self._service, self._options = project, service, options
        self.name = f"{PROJECT}-beside-{service}"

    def __enter__(self) -> "Container":
        more = ["--detach", "--no-deps", "--name", self.name, *self._options, self._service]
        self._project.run("run", *more)
        return self

    def __exit__(self, *_: object) -> None:
        docker("rm", "--force", "--volumes", self.name)

    @property
    def lines(self) -> list[str]:
        """All that it has said."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=True)
        return (done.stdout + done.stderr).splitlines()

    def state(self, what: str) -> str:
        """Return one fact, such as `Status`, `ExitCode` or `Health.Status`."""
        return docker("inspect", "--format", f"{{{{.State.{what}}}}}", self.name)


def docker(*arguments: str) -> str:
    """Return what a command of the engine prints; its failure is an error."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()
