"""`docker compose up` as its users meet it: built, started, harmed and ended on a real engine.

make compose-test
"""

import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from ops.processes import wait_until
from ops.servers import free_port
from training.synthetic import draw_tile

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "histoqueue-test"
pytestmark = pytest.mark.skipif("COMPOSE_TESTS" not in os.environ, reason="`make compose-test` runs these")


class Compose:
    """One project of containers, and its API."""

    def __init__(self, port: int) -> None:
        self._environment = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "PORT": str(port)}
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=40, trust_env=False)

    def run(self, *arguments: str, may_fail: bool = False) -> str:
        """Run a compose command; its output is the error where it fails."""
        done = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert may_fail or done.returncode == 0, (
            f"{done.returncode}: {arguments}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

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


def _exit_status(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """A project of our own, gone with its volumes afterwards."""
    if shutil.which("docker") is None or _exit_status("docker", "info"):
        pytest.fail("Expected a Docker engine that answers. Start one, or leave `make compose-test` out.")
    project = Compose(free_port())
    project.run("build", "--quiet")
    try:
        project.up()
        yield project
    finally:
        project.http.close()
        project.run("down", "--volumes", "--remove-orphans", "--timeout", "10")
        left = subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert left.stdout == ""


def test_a_tile_is_answered_through_the_published_port(compose: Compose) -> None:
    """The contract holds here as it does anywhere."""
    job = compose.finish(compose.accept(1))
    assert job["status"] == "succeeded"
    assert job["model"]["name"] == "lung-cnn"


def test_real_tiles_get_their_right_class(compose: Compose, real_tiles: Path) -> None:
    """One of each class."""
    for name in ("lung_n", "lung_aca", "lung_scc"):
        tile = sorted((real_tiles / name).glob("*.jpeg"))[9]
        answer = compose.http.post(
            "/predict", files={"file": tile.read_bytes()}, headers={"Prefer": "wait=20"}
        )
        assert answer.json()["result"]["class"] == name


def test_a_killed_worker_container_costs_no_job(compose: Compose) -> None:
    """Everything in it dies at once; the engine starts it again."""
    # The engine's own `kill` counts as a wish that it stay down; this is a crash, of the asker too.
    everything = ["exec", "-T", "worker", "python", "-c", "import os; os.kill(-1, 9)"]
    compose.all_succeed(range(100, 160), lambda: compose.run(*everything, may_fail=True))


def test_a_restarted_redis_costs_no_job(compose: Compose) -> None:
    """The API refuses meanwhile, and forgets nothing."""
    compose.all_succeed(range(200, 260), lambda: compose.run("restart", "redis"))


def test_more_workers_are_one_option_away(compose: Compose) -> None:
    """Each is healthy, and together they do the work."""
    compose.up(workers=3)
    running = [json.loads(line) for line in compose.run("ps", "--format", "json", "worker").splitlines()]
    assert [worker["Health"] for worker in running] == ["healthy"] * 3
    compose.all_succeed(range(300, 330))


def test_down_and_up_lose_nothing(compose: Compose) -> None:
    """Results and open jobs outlive the containers."""
    ended = compose.finish(compose.accept(400))
    waiting = [compose.accept(number) for number in range(401, 421)]
    compose.run("down", "--timeout", "20")
    compose.up()
    again = compose.http.get(ended["links"]["self"])
    assert again.json()["result"] == ended["result"]
    assert {compose.finish(path)["status"] for path in waiting} == {"succeeded"}


def test_a_wrong_password_is_said_and_nothing_is_healthy_with_it(compose: Compose) -> None:
    """Both services wait, name the cause in one line, and are well again with the right one."""
    wrong = {"REDIS_URL": "redis://:wrong@redis:6379/0"}
    compose.run("stop", "api", "worker")
    for service, said in (("api", "not_ready"), ("worker", "Cannot connect")):
        name = f"{PROJECT}-wrong-{service}"
        settings = [word for item in wrong.items() for word in ("--env", "=".join(item))]
        compose.run("run", "--detach", "--no-deps", "--name", name, *settings, service)
        try:
            assert wait_until(lambda said=said, name=name: said in _logs(name), 120, 1), _logs(name)
            line = next(line for line in _logs(name).splitlines() if said in line)
            assert "invalid username-password pair" in line
            assert ":wrong@" not in _logs(name)
            assert _health(name) != "healthy"
        finally:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=True)
    compose.up()
    compose.all_succeed(range(500, 503))


def _health(container: str) -> str:
    form = "{{.State.Health.Status}}"
    done = subprocess.run(
        ["docker", "inspect", "--format", form, container], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_a_missing_bucket_or_store_is_said_by_the_one_shot(compose: Compose) -> None:
    """It waits, names the cause once, and nothing that needs it is started meanwhile."""
    name = f"{PROJECT}-wrong-store"
    wrong = ["--env", "S3_ENDPOINT_URL=http://object-store:1"]
    compose.run("run", "--detach", "--no-deps", "--name", name, *wrong, "bucket")
    try:
        assert wait_until(lambda: "http://object-store:1 does not answer" in _logs(name), 60, 1), _logs(name)
        assert _logs(name).count("does not answer") == 1
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=True)


def test_no_password_is_in_an_image_or_a_command_line(compose: Compose) -> None:
    """They lie in one volume that only these services mount."""
    url = compose.run("exec", "-T", "api", "cat", "/run/histoqueue/redis_url")
    secret = url.split(":")[2].partition("@")[0]
    assert len(secret) == 48
    for service in ("redis", "object-store", "api", "worker"):
        container = compose.run("ps", "-q", service).split()[0]
        shown = subprocess.run(
            ["docker", "inspect", container], capture_output=True, text=True, check=True
        ).stdout
        shown += subprocess.run(
            ["docker", "top", container], capture_output=True, text=True, check=True
        ).stdout
        assert secret not in shown


def test_nothing_runs_as_root_or_listens_elsewhere(compose: Compose) -> None:
    """Our two images run as uid 10001 on a read-only root, and the only port is the loopback's."""
    for service in ("api", "worker"):
        assert compose.run("exec", "-T", service, "id", "-u").strip() == "10001"
        written = compose.run(
            "exec", "-T", service, "sh", "-c", "touch /app/x 2>/dev/null && echo yes || echo no"
        )
        assert written.strip() == "no"
    ports = [
        publisher["URL"]
        for line in compose.run("ps", "--format", "json").splitlines()
        for publisher in json.loads(line).get("Publishers") or []
        if publisher["PublishedPort"]
    ]
    assert set(ports) == {"127.0.0.1"}
