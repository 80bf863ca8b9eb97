"""`docker compose up` as its users meet it: built, started, harmed and ended on a real engine.

make compose-test
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.compose.project import Compose
from worker.engine.runtime import FASTEST_FIRST

pytestmark = pytest.mark.skipif("COMPOSE_TESTS" not in os.environ, reason="`make compose-test` runs these")


def test_a_tile_is_answered_through_the_published_port(compose: Compose) -> None:
    """The contract holds here as it does anywhere."""
    job = compose.finish(compose.accept(1))
    assert job["status"] == "succeeded"
    assert job["model"]["name"] == "lung-cnn"


def test_the_image_runs_the_fastest_runtime(compose: Compose) -> None:
    """Its Python and its C library are others than those of `make test`; a fallback would go unseen."""
    lines = compose.run("logs", "--no-log-prefix", "--no-color", "worker").splitlines()
    # Compose begins each line with a control sequence.
    events = [json.loads(line[line.index("{") :]) for line in lines if "{" in line]
    ready = [event for event in events if event["event"] == "engine_ready"]
    assert {event["runtime"] for event in ready} == {FASTEST_FIRST[0]}
    assert not [event for event in events if event["event"] in ("engine_fell_back", "engine_died")]


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
