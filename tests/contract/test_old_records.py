"""What earlier versions wrote, as it lay in Redis and in the object store, is read by this one.

`records/` has a file for each version of which one was kept: what a run of it left of one job of each kind,
without the images.
"""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.api_keys import KeyStore
from shared.deliveries import DeliveryState, batch_subject, job_subject
from shared.deliveries_redis import RedisDeliveries
from shared.envelope import AcceptedJob, seal
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import Job, JobStatus
from shared.services import Services, in_memory
from shared.settings import Settings
from shared.sweep import Sweep, Swept
from tests.work import claim, succeed

VERSIONS = sorted((Path(__file__).parent / "records").glob("*.json"))
SUCCEEDED, MEMBER, QUEUED, CANCELED = "ccd5932b", "5a6cf002", "d0256c4a", "aea5dab4"
TOLD, TO_BE_TOLD, BATCH = "79783090", "dc751c6c", "2a7f6239"


@pytest.fixture(params=VERSIONS, ids=lambda path: path.stem)
def written(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what a version had written."""
    records: dict[str, Any] = json.loads(request.param.read_text())
    return records


@pytest.fixture
def ids(written: dict[str, Any]) -> dict[str, str]:
    """Return the ids of jobs and of the batch by their first digits."""
    names = [key.split(":") for key in written["redis"] if key.startswith(("job:", "batch:"))]
    return {name[1].partition("-")[0]: name[1] for name in names}


@pytest.fixture
def ledger(written: dict[str, Any], redis_client: redis.Redis) -> RedisJobStore:
    """Return today's ledger over it, at the time when that version had ended."""
    for key, value in written["redis"].items():
        if isinstance(value, dict):
            redis_client.hset(key, mapping=value)
        else:
            redis_client.rpush(key, *value)
    return RedisJobStore(redis_client, lambda: written["read_at_ms"])


@pytest.fixture
def services(written: dict[str, Any]) -> Services:
    """Return today's program over its objects, and over a Redis that has lost its data."""
    found = in_memory(Settings(), lambda: written["read_at_ms"])
    for key, value in written["objects"].items():
        body = json.dumps(value).encode()
        if key.startswith("uploads/"):
            file = io.BytesIO(b"an image")
            file.seek(0)
            seal(file, AcceptedJob.model_validate_json(body))
            body = file.getvalue()
        found.objects.put(key, body, "application/json")
    return replace(found, jobs=MemoryJobStore(lambda: written["read_at_ms"], founded=False))


def test_jobs_go_on_where_they_were(ledger: RedisJobStore, ids: dict[str, str]) -> None:
    """Read, claimed and ended, canceled before and retried now."""
    ended = ledger.get(ids[SUCCEEDED])
    assert (ended.status, ended.version) == (JobStatus.SUCCEEDED, 3)
    assert ended.result is not None
    assert ended.result["class"] == "lung_aca"
    assert ended.spec.input.key == f"uploads/2026/11/29/{ended.id}"
    claimed = claim(ledger, ids[QUEUED])
    assert claimed is not None
    assert succeed(ledger, claimed.id, {"class": "lung_n"}, timings_ms={"fetch": 1.5})
    assert ledger.retry(ids[CANCELED], 1000).status == JobStatus.QUEUED
    ledger.delete(ids[SUCCEEDED])


def test_a_batch_has_its_members(ledger: RedisJobStore, ids: dict[str, str]) -> None:
    """And its end is known."""
    batch = ledger.batch(ids[BATCH])
    assert (batch.is_whole, batch.counts[JobStatus.SUCCEEDED], batch.ends) == (True, 4, 4)
    assert ids[MEMBER] in [job.id for job in ledger.ended(ids[BATCH], 0, 10)]


def test_webhooks_are_told_once(
    ledger: RedisJobStore, written: dict[str, Any], redis_client: redis.Redis, ids: dict[str, str]
) -> None:
    """What was delivered stays so, and what ends now is announced."""
    deliveries = RedisDeliveries(redis_client, lambda: written["read_at_ms"])
    for subject in (job_subject(ids[TOLD]), batch_subject(ids[BATCH])):
        (delivery,) = deliveries.of(subject)
        assert delivery.state == DeliveryState.DELIVERED
        assert delivery.about.id == subject.partition(":")[2]
    claim(ledger, ids[TO_BE_TOLD])
    succeed(ledger, ids[TO_BE_TOLD], {"class": "lung_n"}, timings_ms={"fetch": 1.5})
    (delivery,) = deliveries.of(job_subject(ids[TO_BE_TOLD]))
    assert delivery.event == "job.succeeded"


def test_keys_open_and_stay_revoked(services: Services) -> None:
    """None of them is one that cannot be read."""
    ring = KeyStore(services.objects).read()
    assert {key_id: record is not None for key_id, record in ring.records.items()} == {
        "7e15c7cfb3dd33ea": True,
        "5630f5691b42dcc9": True,
    }
    assert ring.revoked == {"5630f5691b42dcc9"}


def test_a_ledger_is_rebuilt_from_its_objects(services: Services, ids: dict[str, str]) -> None:
    """Jobs that waited are queued, those that had ended are known with their results, and so is the batch."""
    assert Sweep(services, Settings(), sleep=lambda seconds: None).run() == Swept(restored=2)
    jobs = services.jobs
    assert {name: jobs.get(ids[name]).status for name in (QUEUED, TO_BE_TOLD, SUCCEEDED, MEMBER)} == {
        QUEUED: JobStatus.QUEUED,
        TO_BE_TOLD: JobStatus.QUEUED,
        SUCCEEDED: JobStatus.SUCCEEDED,
        MEMBER: JobStatus.SUCCEEDED,
    }
    member: Job = jobs.get(ids[MEMBER])
    assert member.spec.batch is not None
    assert jobs.batch(member.spec.batch).counts[JobStatus.SUCCEEDED] == 1
