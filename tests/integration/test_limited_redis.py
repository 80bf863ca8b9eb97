"""A whole system whose Redis user may do what `deploy/redis/users.acl` lists, and nothing else."""

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import redis

from ops.prepare import webhook_secret
from ops.processes import Child, wait_until
from ops.servers import HOST, ObjectServer, free_port
from shared import keys
from shared.errors import RateLimited
from shared.job_store_redis import connect
from shared.model_registry import ModelRegistry
from shared.object_store import WORKER_PATIENCE
from shared.object_store_s3 import S3ObjectStore
from shared.rate_limits import on_redis
from tests import limited_redis
from tests.factories import write_model
from tests.stack import png
from tests.webhook_system import Receiver

pytestmark = pytest.mark.integration
JOBS = 20


@pytest.fixture
def url(tmp_path: Path, limited_url: str, object_server: ObjectServer) -> Iterator[str]:
    """The API and a worker that runs no model, with the limited user's address; ended after the test."""
    bucket = f"limited-{secrets.token_hex(4)}"
    store = S3ObjectStore(bucket, object_server.url, "us-east-1", WORKER_PATIENCE)
    store.ensure_bucket()
    ModelRegistry(store, "lung-cnn").publish(write_model(tmp_path / "model"))
    port = free_port()
    environment = {
        **os.environ,
        "REDIS_URL": limited_url,
        "S3_BUCKET": bucket,
        "MODEL_CACHE_DIR": str(tmp_path / "cache"),
        "WEBHOOK_SECRET": webhook_secret(),
        "WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8",
        # Which need a right of their own.
        "TASK_EVENTS": "true",
    }
    api = [sys.executable, "-m", "gunicorn", "--config", "python:api.gunicorn_conf"]
    children = [
        Child(
            "worker",
            [sys.executable, "-m", "tests.chaos.worker", "fake", "1"],
            tmp_path / "w.log",
            environment,
        ),
        Child("webhooks", [sys.executable, "-m", "worker.webhooks"], tmp_path / "h.log", environment),
        Child("api", [*api, "--bind", f"{HOST}:{port}", "api.wsgi:app"], tmp_path / "a.log", environment),
    ]
    for child in children:
        child.start()
    try:
        yield f"http://{HOST}:{port}"
    finally:
        for child in children:
            child.stop(15)


def test_jobs_are_done_with_the_shipped_rights_alone(url: str, limited_url: str, tmp_path: Path) -> None:
    """Submission, work, waiting, webhooks, deletion; that nothing was refused is checked by the fixture."""
    with httpx2.Client(base_url=url, timeout=40, trust_env=False) as http:

        def is_ready() -> bool:
            try:
                return http.get("/readyz").status_code == 200
            except httpx2.HTTPError:
                return False

        assert wait_until(is_ready, 60, 0.2), (tmp_path / "w.log").read_text() + (
            tmp_path / "a.log"
        ).read_text()
        paths = [
            str(
                http.post("/predict", content=png(n), headers={"Content-Type": "image/png"}).headers[
                    "Location"
                ]
            )
            for n in range(JOBS)
        ]
        for path in paths:
            assert http.get(path, params={"wait": "20"}).json()["status"] == "succeeded"
        receiver = Receiver()
        asked = {"webhook_url": receiver.url, "cache": "false"}
        http.post("/predict", content=png(), params=asked, headers={"Content-Type": "image/png"})
        receiver.expect(1)
        receiver.close()
        assert http.delete(paths[0]).status_code in (200, 204)
        assert http.get("/capacity").status_code == 200


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("EVAL", "return 1", "0"),
        ("KEYS", "*"),
        ("GET", "somebody-elses"),
        ("PUBLISH", "somebody-elses", "x"),
        ("ACL", "LIST"),
        ("SHUTDOWN",),
    ],
)
def test_the_user_may_do_nothing_else(
    redis_client: redis.Redis, redis_server: object, command: tuple[str, ...]
) -> None:
    """Whoever has the program's password cannot empty, read or reconfigure the rest of the server."""
    limited = limited_redis.limit(redis_client, redis_server.url)  # type: ignore[attr-defined]
    with redis.Redis.from_url(limited) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


def test_every_key_of_ours_is_covered() -> None:
    """A key that is added to `shared/keys.py` is added to the list of rights."""
    patterns = [word[1:] for word in limited_redis.rules() if word[0] in "~&"]
    names = [value for name, value in vars(keys).items() if name.isupper()]
    assert len(names) > 10
    for name in names:
        # A prefix needs a pattern for whatever follows it.
        wanted = f"{name}*" if name.endswith(":") else name
        assert any(
            wanted == pattern or (pattern.endswith("*") and wanted.startswith(pattern[:-1]))
            for pattern in patterns
        ), name


def test_requests_are_counted_with_the_shipped_rights(limited_url: str) -> None:
    """That nothing was refused is checked by the fixture; a refusal would let everybody pass."""
    rates = on_redis(connect(limited_url, 5))
    for _ in range(2):
        rates.count("a", 2)
    with pytest.raises(RateLimited):
        rates.count("a", 2)
