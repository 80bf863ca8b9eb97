"""The batches of the ledger on Redis."""

import json
from collections.abc import Sequence
from typing import Any

from shared import keys
from shared.batch_store import INTAKE_SECONDS, batch_expired, no_such_batch
from shared.errors import HistoQueueError, JobStoreUnavailable, LedgerRebuilding
from shared.job_store import key_reused, no_memory
from shared.redis_ledger import (
    NUMBERS,
    Call,
    RedisLedger,
    answering,
    create_arguments,
    created_or_refused,
    milliseconds,
    monotonic_ms,
    spec_text,
    to_batch,
    to_job,
)
from shared.schemas import Batch, Idempotency, Job, JobStatus, NewBatch, NewJob


class RedisBatches(RedisLedger):
    """See `shared.batch_store.BatchStore` for what each method promises."""

    def create_batch(self, new: NewBatch, begun_at_ms: int | None = None, *, is_full: bool = False) -> str:
        kept = milliseconds(new.retention_seconds + new.tombstone_seconds)
        outcome, *found = self._call(
            "batch_create",
            "",
            new.id,
            new.owner or "",
            kept,
            milliseconds(new.expires_in_seconds) + kept,
            milliseconds(new.retention_seconds),
            new.idempotency.fingerprint if new.idempotency else "",
            begun_at_ms or 0,
            new.webhook_url or "",
            int(is_full),
            extra_keys=[keys.IDEMPOTENCY + new.idempotency.key] if new.idempotency else [],
        )
        if outcome == "conflict":
            raise key_reused()
        if outcome == "rebuilding":
            raise LedgerRebuilding
        if outcome == "full":
            raise no_memory()
        return str(found[0])

    def create_many(
        self, news: Sequence[NewJob], max_open: int, max_owned: int = 0
    ) -> list[Job | HistoQueueError]:
        now_ms = int(self._redis_now_ms())
        answers = self._call_many(
            "create", [Call(new.id, create_arguments(new, now_ms, max_open, None, max_owned)) for new in news]
        )
        return [self._created(answer, max_open, max_owned) for answer in answers]

    def answered_by(self, answer_keys: Sequence[str]) -> list[str | None]:
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for key in answer_keys:
                pipe.get(keys.ANSWER + key)
            found = pipe.execute()
        return [None if other is None else str(other) for other in found]

    def answer_many(self, news: Sequence[NewJob], answered_by: Sequence[str]) -> list[Job | None]:
        now_ms = int(self._redis_now_ms())
        calls = [
            Call(new.id, create_arguments(new, now_ms, 0, None, 0, other))
            for new, other in zip(news, answered_by, strict=True)
        ]
        made = [self._created(answer, 0, 0) for answer in self._call_many("create", calls)]
        return [None if isinstance(job, HistoQueueError) else job for job in made]

    def _created(self, answer: Any, max_open: int, max_owned: int) -> Job | HistoQueueError:
        if isinstance(answer, Exception):
            away = JobStoreUnavailable("The job store does not answer. Ask again later.")
            away.__cause__ = answer
            return away
        outcome, now, *payload = answer
        self._clock_lead_ms = int(now) - monotonic_ms()
        return created_or_refused(outcome, payload[0] if payload else None, max_open, max_owned)

    def batch(self, batch_id: str, seal: bool = False) -> Batch:
        outcome, now, *found = self._call("batch_get", "", batch_id, int(seal), milliseconds(INTAKE_SECONDS))
        if outcome == "rebuilding":
            raise LedgerRebuilding
        if outcome == "unknown":
            raise no_such_batch(batch_id)
        flat, ends = found
        batch = to_batch([*flat, "id", batch_id, "ends", str(ends)])
        if batch.expires_at_ms is not None and int(now) > batch.expires_at_ms:
            raise batch_expired(batch.owner)
        return batch

    def members(self, batch_id: str, start: int, count: int) -> list[str]:
        with answering():
            found = self._redis.lrange(f"{keys.BATCH}{batch_id}:jobs", start, start + count - 1)
        return [str(job_id) for job_id in found]

    def ended(self, batch_id: str, start: int, count: int) -> list[Job]:
        return [
            to_job(record)
            for record in self._call("batch_ended", "", batch_id, start, start + count - 1, keys.JOB)
        ]

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hmget(keys.JOB + job_id, ["status", "deleted"])
            found = pipe.execute()
        return [JobStatus(status) if status and not deleted else None for status, deleted in found]

    def restore_ended(
        self,
        job: Job,
        image_retention_seconds: float,
        tombstone_seconds: float,
        idempotency: Idempotency | None = None,
    ) -> bool:
        finished, expires = job.finished_at_ms or 0, job.expires_at_ms or 0
        fields = {
            "spec": spec_text(job.id, job.spec),
            "owner": job.spec.owner,
            "priority": job.spec.priority,
            "batch": job.spec.batch,
            "webhook_url": job.spec.webhook_url,
            "result": json.dumps(job.result) if job.result is not None else None,
            "error": job.error.model_dump_json() if job.error else None,
            "cached": 1 if job.cached else None,
            "timings_ms": json.dumps(job.timings_ms) if job.timings_ms is not None else None,
            "patience_ms": job.deadline_ms - job.created_at_ms,
            "retention_ms": expires - finished,
            "image_retention_ms": milliseconds(image_retention_seconds),
            "tombstone_ms": milliseconds(tombstone_seconds),
            **{name: getattr(job, name) for name in NUMBERS},
        }
        kept = max(1, expires + milliseconds(tombstone_seconds) - int(self._redis_now_ms()))
        image_until = finished + milliseconds(image_retention_seconds)
        flat = [part for name, value in fields.items() if value is not None for part in (name, value)]
        fingerprint = idempotency.fingerprint if idempotency else ""
        extra = [keys.IDEMPOTENCY + idempotency.key] if idempotency else []
        arguments = (job.status, image_until, kept, fingerprint, *flat)
        return bool(self._call("restore", job.id, *arguments, extra_keys=extra))
