"""Redis loses everything it knew, under load: no accepted job is lost, denied, or ended twice."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from ops.processes import Child, wait_until
from ops.servers import ObjectServer, RedisServer, free_port
from shared.archive import Archive
from shared.batch_archive import BatchArchive
from shared.envelope import AcceptedJob, seal
from shared.errors import BatchNotFound
from shared.job_store_redis import RedisJobStore
from shared.object_store import REQUEST_PATIENCE
from shared.object_store_s3 import S3ObjectStore
from shared.schemas import (
    Idempotency,
    JobStatus,
    NewBatch,
    new_job_id,
    wall_clock_ms,
)
from shared.services import in_memory
from shared.settings import Settings
from shared.sweep import Sweep
from tests.stack import Stack, png
from tests.work import claim, new_job, succeed

pytestmark = [pytest.mark.integration, pytest.mark.tensorflow]

LOAD = 120


class Disposable:
    """A Redis whose data can be thrown away while others use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = RedisServer(free_port(), "password", folder / "redis")
        self._child = self._start()

    def _start(self) -> Child:
        child = self.server.child(self._folder / "redis.log")
        child.start()
        assert wait_until(self.server.is_ready, 20)
        return child

    def lose_everything(self) -> None:
        """End it as a power cut does, and start it with an empty disk."""
        self._child.kill()
        shutil.rmtree(self._folder / "redis")
        self._child = self._start()

    def stop(self) -> None:
        """End it."""
        self._child.kill()


@pytest.fixture
def disposable(tmp_path: Path) -> Iterator[Disposable]:
    made = Disposable(tmp_path)
    yield made
    made.stop()


def submit(stack: Stack, number: int, run: str) -> str:
    """Submit until accepted, always with the same key; return where the job is."""
    for _ in range(200):
        answer = stack.client.post(
            "/predict",
            params={"custom_id": f"tile {number}", "mpp": "0.5", "expires_in": "3000"},
            content=png(number % 7),
            headers={"Content-Type": "image/png", "Idempotency-Key": f"{run}-{number}"},
        )
        if answer.status_code in (200, 202):
            return str(answer.headers["Location"])
        assert answer.status_code in (429, 503), answer.text
        time.sleep(0.3)
    raise AssertionError(f"never accepted\n{stack.story()}")


def test_a_wiped_redis_loses_no_job(tmp_path: Path, disposable: Disposable) -> None:
    """Wiped in the middle of a load: every 202 ends, with its options; what had ended is still answered."""
    with Stack(tmp_path / "stack", {"REDIS_URL": disposable.server.url}) as stack:
        run = new_job_id()
        done = submit(stack, -1, run)
        before = stack.finish(done)
        canceled = submit(stack, -2, run)
        stack.client.post(f"{canceled}/cancel")
        end = stack.finish(canceled)["status"]
        # The outcome of the first one is in the object store by then; the cancellation was there at once.
        time.sleep(2)

        with ThreadPoolExecutor(8) as pool:
            coming = [pool.submit(submit, stack, number, run) for number in range(LOAD)]
            coming[LOAD // 2].result()
            # From this thread: a server ends with the thread that started it.
            disposable.lose_everything()
            paths = [path.result() for path in coming]
        jobs = [stack.finish(path, 120) for path in paths]
        assert [job["status"] for job in jobs if job["status"] != "succeeded"] == []
        assert [job["custom_id"] for job in jobs] == [f"tile {number}" for number in range(LOAD)]
        assert {job["input"]["mpp"] for job in jobs} == {0.5}
        after = stack.finish(done)
        assert json.dumps(after) == json.dumps(before)
        assert stack.finish(canceled)["status"] == end
        assert wait_until(lambda: stack.client.get(f"/result/{new_job_id()}").status_code == 404, 60)
        assert submit(stack, LOAD - 1, run) == paths[-1]
        assert submit(stack, -1, run) == done


def test_recover_by_hand_takes_in_what_the_ledger_lost(
    redis_server: RedisServer, redis_client: Redis, object_server: ObjectServer
) -> None:
    """An operator may run it at any time; the second time there is nothing to do."""
    objects = S3ObjectStore("histoqueue", object_server.url, "us-east-1", REQUEST_PATIENCE)
    objects.ensure_bucket()
    new = new_job()
    upload = io.BytesIO(b"image")
    seal(upload, AcceptedJob(job=new, accepted_at_ms=wall_clock_ms() - 60_000))
    objects.put(new.spec.input.key, upload, "image/png")
    environment = {**os.environ, **object_server.environment(), "REDIS_URL": redis_server.url}

    def recover() -> str:
        return subprocess.run(
            [sys.executable, "-m", "ops.recover"], env=environment, text=True, capture_output=True, check=True
        ).stdout

    try:
        assert "\n1 jobs restored" in "\n" + recover()
        jobs = RedisJobStore(redis_client)
        assert jobs.get(new.id).spec == new.spec
        assert "0 jobs restored" in recover()
        jobs.begin_sweep(60)
        with pytest.raises(subprocess.CalledProcessError):
            recover()
    finally:
        objects.delete(new.spec.input.key)


def test_a_batch_that_an_older_copy_of_redis_lacks_comes_back(
    redis_server: RedisServer, redis_client: Redis
) -> None:
    """As after a failover: with its members and its end, and what the copy has stays as it is."""
    jobs = RedisJobStore(redis_client)
    services = replace(in_memory(Settings()), jobs=jobs)
    jobs.found()
    old = jobs.create(new_job(), 10).job
    raw = Redis.from_url(redis_server.url)
    copy = {key: raw.dump(key) for key in raw.scan_iter()}

    batch = NewBatch(
        id=new_job_id(),
        owner=None,
        expires_in_seconds=3600,
        retention_seconds=600,
        tombstone_seconds=600,
        idempotency=Idempotency(key="batch", fingerprint="f"),
    )
    jobs.create_batch(batch)
    kept, begun_at_ms = BatchArchive(services.objects), wall_clock_ms() - 60_000
    kept.put(batch, begun_at_ms)
    waits, ends = members = [new_job(batch=batch.id), new_job(batch=batch.id)]
    kept.put_members(batch.id, [new.id for new in members])
    for new in members:
        upload = io.BytesIO(b"image")
        seal(upload, AcceptedJob(job=new, accepted_at_ms=begun_at_ms))
        services.objects.put(new.spec.input.key, upload, "image/png")
    jobs.create_many(members, 10)
    assert claim(jobs, ends.id)
    assert succeed(jobs, ends.id, {"class": "lung_n"})
    Archive(services.objects).put(jobs.get(ends.id))
    jobs.batch(batch.id, seal=True)
    kept.put_whole(batch.id)

    raw.flushall()
    for key, value in copy.items():
        raw.restore(key, 0, value)
    raw.close()
    with pytest.raises(BatchNotFound):
        jobs.batch(batch.id)
    swept = Sweep(services, Settings()).run()
    assert swept is not None
    assert swept.restored == 1
    found = jobs.batch(batch.id)
    assert (found.counts[JobStatus.QUEUED], found.counts[JobStatus.SUCCEEDED], found.is_whole) == (1, 1, True)
    assert sorted(jobs.members(batch.id, 0, 10)) == sorted(new.id for new in members)
    assert [job.id for job in jobs.ended(batch.id, 0, 10)] == [ends.id]
    assert jobs.create_batch(batch) == batch.id
    assert jobs.get(waits.id).status == jobs.get(old.id).status == JobStatus.QUEUED
