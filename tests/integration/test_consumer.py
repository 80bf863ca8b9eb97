"""A real worker beside what may come out of its queue, and a Redis that refuses to be written."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from ops.processes import Child, wait_until
from ops.servers import RedisServer
from shared import keys
from shared.job_store_redis import RedisJobStore
from shared.model_registry import ModelRegistry
from shared.object_store_files import FileObjectStore
from shared.schemas import ModelRef, new_job_id
from shared.settings import Settings
from shared.task_queue import INFER_TASK
from tests.factories import write_model
from tests.work import new_job
from worker.lifecycle import jobs_at_once

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Site:
    """A worker whose engine has no model, and its Redis."""

    worker: Child
    redis: redis.Redis
    jobs: RedisJobStore
    objects: FileObjectStore
    model: ModelRef

    def still_works(self) -> bool:
        """Have one more job done by the same process."""
        pid = self.worker.pid
        new = new_job(b"tile", model=self.model)
        self.objects.put(new.spec.input.key, b"tile", "image/png")
        self.jobs.create(new, max_open=100)
        ended = wait_until(lambda: self.jobs.get(new.id).status.is_final, 20)
        return ended and self.worker.is_running and self.worker.pid == pid

    def log(self) -> str:
        """Return what the worker has said."""
        return self.worker.log.read_text()


@pytest.fixture
def site(tmp_path: Path, redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[Site]:
    """A worker that consumes."""
    objects = FileObjectStore(tmp_path / "objects", "histoqueue")
    objects.ensure_bucket()
    model = ModelRegistry(objects, "lung-cnn").publish(write_model(tmp_path / "model"))
    jobs = RedisJobStore(redis_client)
    jobs.found()
    environment = {
        # Other tests' S3 server would be asked for the model.
        **{name: value for name, value in os.environ.items() if not name.startswith("S3_")},
        "REDIS_URL": redis_server.url,
        "OBJECT_STORE_DIR": str(tmp_path / "objects"),
        "MODEL_CACHE_DIR": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "tests.chaos.worker", "fake", "1"]
    worker = Child("worker", command, tmp_path / "worker.log", environment)
    worker.start()
    try:
        assert wait_until(lambda: bool(redis_client.exists(keys.WORKERS)), 30), worker.log.read_text()
        yield Site(worker, redis_client, jobs, objects, model)
    finally:
        worker.stop(20)


def entry(**parts: object) -> str:
    """Return an entry of the queue that is like ours but for these parts."""
    message = {
        "body": "W10=",
        "headers": {"task": INFER_TASK, "id": "no job"},
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": {
            "delivery_tag": new_job_id(),
            "delivery_info": {"exchange": "", "routing_key": "x"},
            "body_encoding": "base64",
        },
    }
    properties = {name: parts.pop(name) for name in tuple(parts) if name in message["properties"]}
    return json.dumps(message | parts | {"properties": message["properties"] | properties})


def test_what_is_no_message_is_dropped_with_a_line(site: Site) -> None:
    """Whoever can write to the queue ends no worker by it."""
    garbage = [
        *("not json", b"\xff\xfe", "5", "[]", "{}", '{"properties": {}}', '{"properties": 5}', "[" * 100_000),
        '{"properties": "text", "body": "text"}',
        *(entry(headers=[1]), entry(headers={"task": []}), entry(headers={"task": "other"})),
        *(entry(body_encoding="rot13"), entry(delivery_tag=[])),
    ]
    for each in garbage:
        site.redis.lpush(keys.INFERENCE_QUEUE, each)
    assert site.still_works(), site.log()
    assert site.log().count("message_unreadable") == len(garbage)
    others = (None, {"task": INFER_TASK}, {"task": "other", "id": "no job"})
    site.redis.lpush(keys.INFERENCE_QUEUE, entry(), *(entry(headers=headers) for headers in others))
    assert site.still_works(), site.log()
    assert site.log().count("message_unreadable") == len(garbage)


@pytest.mark.parametrize("headers", [{"task": ["text"], "id": "no job"}, {"task": "other"}])
def test_what_is_no_message_takes_nobodys_place(site: Site, headers: dict[str, object]) -> None:
    """A worker that counted them among those under way would take no more, and look well."""
    for _ in range(2 * jobs_at_once(Settings())):
        site.redis.lpush(keys.INFERENCE_QUEUE, entry(headers=headers))
    assert site.still_works(), site.log()


def test_a_redis_that_may_only_be_read_for_a_while_ends_no_worker(site: Site) -> None:
    """As the former master of a failover: it asks again, until the address leads to the new one."""
    site.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        assert wait_until(lambda: "Trying to re-establish" in site.log(), 20), site.log()
    finally:
        site.redis.execute_command("REPLICAOF", "NO", "ONE")
    assert site.still_works(), site.log()
    # The new connection is told what the first one was.
    site.redis.lpush(keys.INFERENCE_QUEUE, "not json")
    assert site.still_works(), site.log()
    site.worker.stop(20)
    assert "Restoring" not in site.log()


def test_a_worker_that_is_told_to_end_ends_well(site: Site) -> None:
    """Nobody is to start it again."""
    site.worker.send(signal.SIGTERM)
    site.worker.reap(20)
    assert site.worker.exit_code == 0, site.log()
