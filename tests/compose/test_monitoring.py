"""The profile `monitoring`: it reads what there is, with the rights that it needs and no more."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from ops.processes import wait_until
from ops.servers import free_port
from tests.compose.project import Compose

pytestmark = pytest.mark.skipif("COMPOSE_TESTS" not in os.environ, reason="`make compose-test` runs these")


@pytest.fixture
def events(compose: Compose) -> Iterator[None]:
    """Workers that tell Celery's events."""
    with compose.set(TASK_EVENTS="true"):
        compose.up()
        yield
    compose.up()


def test_flower_shows_the_queues_and_the_tasks_and_may_do_nothing_else(
    compose: Compose, events: None
) -> None:
    """Behind its password, by a user of its own that Redis refuses everything else."""
    port = free_port()
    with compose.set(FLOWER_PORT=str(port)):
        compose.run("--profile", "monitoring", "up", "--detach", "--wait", "--build", "flower")
    url = f"http://127.0.0.1:{port}"
    assert httpx2.get(f"{url}/api/tasks", trust_env=False).status_code == 401
    auth = compose.run("exec", "-T", "flower", "cat", "/run/monitoring/flower_auth")
    user, _, password = auth.partition(":")
    with httpx2.Client(base_url=url, auth=(user, password), trust_env=False, timeout=20) as flower:
        queues = flower.get("/api/queues/length").json()["active_queues"]
        assert {queue["name"] for queue in queues} == {"celery-inference", "celery-inference-bulk"}
        paths = compose.all_succeed(range(600, 610))
        ids = {path.rsplit("/", 1)[-1] for path in paths}
        assert wait_until(lambda: ids <= flower.get("/api/tasks").json().keys(), 30, 0.5)
        assert flower.post("/api/worker/shutdown/any").status_code == 403
    _redis_has_refused_flower_nothing(compose)
    _redis_refuses_flower(compose)


def _redis_has_refused_flower_nothing(compose: Compose) -> None:
    program = (
        "import redis, pathlib\n"
        "r = redis.Redis.from_url(pathlib.Path('/run/histoqueue/redis_url').read_text())\n"
        "print([(e['reason'], e['object']) for e in r.acl_log() if e['username'] == 'flower'])\n"
    )
    assert compose.run("exec", "-T", "api", "python", "-c", program).strip() == "[]"


def _redis_refuses_flower(compose: Compose) -> None:
    program = (
        "import redis, pathlib\n"
        "r = redis.Redis.from_url(pathlib.Path('/run/monitoring/flower_url').read_text())\n"
        "for words in (('GET', 'job:x'), ('LPUSH', 'celery-inference', 'x'), ('FLUSHALL',), ('KEYS', '*'),\n"
        "              ('BRPOP', 'celery-inference', '1'), ('CONFIG', 'GET', '*'), ('DEL', 'unacked')):\n"
        "    try:\n"
        "        r.execute_command(*words)\n"
        "    except redis.exceptions.NoPermissionError:\n"
        "        continue\n"
        "    raise SystemExit(f'allowed: {words}')\n"
        "print(r.llen('celery-inference'))\n"
    )
    assert compose.run("exec", "-T", "flower", "python", "-c", program).strip() == "0"


def test_prometheus_reads_the_api_and_every_worker(compose: Compose) -> None:
    """Without an API key, and with one made meanwhile: its own opens /metrics either way."""
    services = json.loads(compose.run("--profile", "monitoring", "config", "--format", "json"))["services"]
    image = services["prometheus"]["image"]
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
        pytest.skip(f"{image} is not on this machine")
    port = free_port()
    with compose.set(PROMETHEUS_PORT=str(port)):
        compose.run("--profile", "monitoring", "up", "--detach", "--wait", "prometheus")
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False, timeout=20) as prometheus:

        def value(query: str) -> list[Any]:
            found = prometheus.get("/query", params={"query": query}).json()["data"]["result"]
            return [item["value"][1] for item in found]

        assert wait_until(lambda: value("up") == ["1", "1"], 90, 1), prometheus.get("/targets").text
        assert value("histoqueue_workers") == ["1"]
        compose.all_succeed(range(700, 705))
        assert wait_until(lambda: value("sum(histoqueue_worker_attempts_total)") == ["5"], 60, 1)
        rules = prometheus.get("/rules").json()["data"]["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        assert len(rules) > 5
        _make_key(compose)
        made_at = _last_scrape(prometheus)["lastScrape"]
        assert wait_until(lambda: _last_scrape(prometheus)["lastScrape"] > made_at, 60, 1)
        assert _last_scrape(prometheus)["lastError"] == ""


def _last_scrape(prometheus: httpx2.Client) -> dict[str, Any]:
    targets: list[dict[str, Any]] = prometheus.get("/targets").json()["data"]["activeTargets"]
    return next(target for target in targets if target["labels"]["job"] == "api")


def _make_key(compose: Compose) -> None:
    """Close the API to whoever has no key; this project's client goes on with the first one."""
    create = ["python", "-m", "ops.keys", "create", "--name", "x", "--scope", "admin"]
    key = compose.run("exec", "-T", "api", *create).strip()
    assert wait_until(lambda: compose.http.get("/metrics").status_code == 401, 30, 0.5)
    compose.http.headers["Authorization"] = f"Bearer {key}"
