"""The job ledger in one process' memory: what tests run against, with a clock that they can move."""

import json
import queue
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from shared.deliveries import job_subject
from shared.drain import DRAIN_WINDOW_SECONDS, INTERVAL_MS, busy_ms, first_recent, service_rate
from shared.errors import (
    HistoQueueError,
    LedgerRebuilding,
    QueueFull,
    QuotaReached,
)
from shared.job_store import (
    MOST_LOST_WORKERS,
    Canceled,
    Change,
    Created,
    Ending,
    Heads,
    already_final,
    image_expired,
    key_reused,
    no_such_job,
    not_retryable,
    result_expired,
    watermark,
)
from shared.job_store_memory_batches import MemoryBatches
from shared.job_store_memory_upkeep import MemoryUpkeep
from shared.memory_ledger import Record, forgotten
from shared.schemas import (
    RETRYABLE,
    Admission,
    Depth,
    Idempotency,
    Job,
    JobError,
    JobStatus,
    NewJob,
    Priority,
    Standing,
    Waiting,
)


class MemoryJobStore(MemoryBatches, MemoryUpkeep):
    """See `shared.job_store.JobStore` for what each method promises."""

    def create(
        self, new: NewJob, max_open: int, accepted_at_ms: int | None = None, max_owned: int = 0
    ) -> Created:
        with self._lock:
            is_new = new.id not in self._records
            created = self._create(new, max_open, accepted_at_ms, max_owned)
            if is_new and not created.replayed:
                self.queue.publish(created.job)
            return replace(created, job=self._told(created.job))

    def create_many(
        self, news: Sequence[NewJob], max_open: int, max_owned: int = 0
    ) -> list[Job | HistoQueueError]:
        found: list[Job | HistoQueueError] = []
        for new in news:
            try:
                found.append(self.create(new, max_open, max_owned=max_owned).job)
            except HistoQueueError as error:
                found.append(error)
        return found

    def admission(self, owner: str | None, answer_key: str | None = None) -> Admission:
        with self._lock:
            open_ = [record.job for record in self._records.values() if not record.job.status.is_final]
            return Admission(
                open=len(open_),
                owned=sum(1 for job in open_ if owner and job.spec.owner == owner),
                is_founded=self._founded,
                answered_by=self._answered_by(answer_key or ""),
            )

    def answered_by(self, answer_keys: Sequence[str]) -> list[str | None]:
        with self._lock:
            return [self._answered_by(key) for key in answer_keys]

    def _answered_by(self, answer_key: str) -> str | None:
        record = self._find(self._answers.get(answer_key, ""))
        is_kept = record is not None and self._clock() <= (record.job.expires_at_ms or 0)
        return record.job.id if record and is_kept else None

    def answer_many(self, news: Sequence[NewJob], answered_by: Sequence[str]) -> list[Job | None]:
        made = [self.answer(new, other) for new, other in zip(news, answered_by, strict=True)]
        return [None if created is None else created.job for created in made]

    def answer(self, new: NewJob, answered_by: str) -> Created | None:
        with self._lock:
            if new.idempotency and (known := self._replayed(new.idempotency)):
                return Created(known, replayed=True)
            other = self._find(answered_by)
            if other is None or other.job.result is None:
                return None
            created = self._create(new, 2**62, None, 0)
            if not created.job.status.is_final:
                record = self._records[new.id]
                record.job = record.job.model_copy(update={"cached": True})
                self._finish(record, JobStatus.SUCCEEDED, result=other.job.result)
            return Created(self._records[new.id].job, replayed=False)

    def _create(self, new: NewJob, max_open: int, accepted_at_ms: int | None, max_owned: int) -> Created:
        with self._lock:
            if new.id in self._records:
                return Created(self._records[new.id].job, replayed=False)
            if new.idempotency and (known := self._replayed(new.idempotency)):
                return Created(known, replayed=True)
            if new.idempotency and not self._founded and accepted_at_ms is None:
                raise LedgerRebuilding
            self._check_room(new.spec.owner, max_open, max_owned)
            now = self._clock()
            job = Job(
                id=new.id,
                spec=new.spec,
                status=JobStatus.QUEUED,
                # A restored job may have had any number of versions that its readers still know.
                version=now // 1000 if accepted_at_ms else 1,
                created_at_ms=accepted_at_ms or now,
                deadline_ms=(accepted_at_ms or now) + int(new.expires_in_seconds * 1000),
                published_at_ms=now,
            )
            self._records[new.id] = Record(
                job,
                image_retention_ms=int(new.image_retention_seconds * 1000),
                retention_ms=int(new.retention_seconds * 1000),
                tombstone_ms=int(new.tombstone_seconds * 1000),
                patience_ms=int(new.expires_in_seconds * 1000),
            )
            self._counted["accepted"] += 1
            self._note_work()
            self._join_batch(job, is_new=True)
            if new.idempotency:
                self._idempotency[new.idempotency.key] = (new.idempotency.fingerprint, new.id)
            return Created(job, replayed=False)

    def find_replay(self, idempotency: Idempotency) -> Job | None:
        with self._lock:
            if not self._founded and idempotency.key not in self._idempotency:
                raise LedgerRebuilding
            return self._replayed(idempotency)

    def _replayed(self, idempotency: Idempotency) -> Job | None:
        with self._lock:
            fingerprint, job_id = self._idempotency.get(idempotency.key, ("", ""))
            record = self._find(job_id)
            if record is None:
                return None
            if fingerprint != idempotency.fingerprint:
                raise key_reused()
            self._end_if_late(record)
            return record.job

    def get(self, job_id: str) -> Job:
        with self._lock:
            record = self._known(job_id)
            self._end_if_late(record)
            if record.job.expires_at_ms is not None and self._clock() > record.job.expires_at_ms:
                raise result_expired(record.job.spec.owner)
            return self._told(record.job)

    def _claim(self, job_id: str, token: str, lease_seconds: float, max_run_seconds: float) -> Job | None:
        with self._lock:
            record = self._find(job_id)
            if record is None or record.job.status.is_final:
                return None
            if self._lease_is_live(record):
                return record.job if record.token == token else None
            if self._end_if_late(record):
                return None
            if record.job.status == JobStatus.RUNNING and self._lose_worker(record):
                return None
            now = self._clock()
            record.token = token
            record.lease_until_ms = record.look_at_ms = now + int(lease_seconds * 1000)
            record.run_until_ms = now + int(max_run_seconds * 1000)
            record.change(status=JobStatus.RUNNING, started_at_ms=now, attempt=record.job.attempt + 1)
            self._tell(job_id)
            return record.job

    def claim_all(
        self, tokens: Mapping[str, str], lease_seconds: float, max_run_seconds: float
    ) -> dict[str, Job]:
        claimed = {
            job_id: self._claim(job_id, token, lease_seconds, max_run_seconds)
            for job_id, token in tokens.items()
        }
        return {job_id: job for job_id, job in claimed.items() if job is not None}

    def renew(self, job_id: str, token: str, lease_seconds: float) -> bool:
        with self._lock:
            record = self._held(job_id, token)
            if record is None or self._clock() > record.run_until_ms:
                return False
            until = min(self._clock() + int(lease_seconds * 1000), record.run_until_ms)
            record.lease_until_ms = record.look_at_ms = until
            return True

    def end_all(self, endings: Sequence[Ending]) -> list[bool | Exception]:
        return [self._end(ending) for ending in endings]

    def _end(self, ending: Ending) -> bool | Exception:
        status = JobStatus.FAILED if ending.error else JobStatus.SUCCEEDED
        with self._lock:
            record = self._held(ending.job_id, ending.token)
            if record is None:
                return self._was_ended_by(ending.job_id, ending.token, status)
            try:
                result = json.loads(json.dumps(ending.result))
                error = ending.error and JobError.model_validate_json(ending.error.model_dump_json())
            except Exception as broken:  # noqa: BLE001 - of this one alone
                return broken
            record.ended_by = ending.token
            self._finish(record, status, result=result, error=error, timings_ms=ending.timings_ms)
            if ending.answer_key and not error:
                self._answers[ending.answer_key] = ending.job_id
            return True

    def release(self, job_id: str, token: str, hold_seconds: float) -> bool:
        with self._lock:
            record = self._held(job_id, token)
            if record is None:
                return False
            record.token = ""
            record.look_at_ms = self._clock() + int(hold_seconds * 1000)
            record.change(status=JobStatus.QUEUED, attempt=record.job.attempt - 1)
            self._tell(job_id)
            return True

    def strike(self, job_id: str, token: str, strikes: int) -> bool:
        with self._lock:
            record = self._held(job_id, token)
            if record is None:
                return False
            record.job = record.job.model_copy(update={"strikes": strikes})
            return True

    def cancel(self, job_id: str) -> Canceled:
        with self._lock:
            record = self._known(job_id)
            self._end_if_late(record)
            if record.job.status.is_final:
                raise already_final(record.job.status)
            was_running = record.job.status == JobStatus.RUNNING
            self._finish(record, JobStatus.CANCELED)
            return Canceled(record.job, was_running)

    def delete(self, job_id: str) -> str:
        with self._lock:
            record = self._known(job_id)
            was_open = not record.job.status.is_final
            # Before: what is told of its batch, should that be completed by it, counts it as deleted.
            record.deleted = True
            if was_open:
                self._finish(record, JobStatus.CANCELED)
            self.deliveries.forget(job_subject(job_id))
            record.ended_as = None
            record.image_gone = False
            record.archive_at_ms = None
            record.clean_at_ms = self._clock() - 1
            record.change(expires_at_ms=self._clock() - 1, **forgotten(record.job))
            self._tell(job_id)
            return record.job.spec.input.key

    def retry(self, job_id: str, max_open: int, max_owned: int = 0) -> Job:
        with self._lock:
            record = self._known(job_id)
            self._end_if_late(record)
            if record.job.status not in RETRYABLE:
                raise not_retryable(record.job.status)
            now = self._clock()
            image_until_ms = (record.job.finished_at_ms or 0) + record.image_retention_ms
            if record.deleted or record.image_gone or now >= image_until_ms:
                raise image_expired()
            self._check_room(record.job.spec.owner, max_open, max_owned)
            self._counted["retried"] += 1
            self._join_batch(record.job, is_new=False)
            record.ended_as = None
            record.clean_at_ms = record.archive_at_ms = record.ended_by = None
            record.change(
                status=JobStatus.QUEUED,
                deadline_ms=now + record.patience_ms,
                published_at_ms=now,
                **dict.fromkeys(("error", "timings_ms", "started_at_ms", "finished_at_ms", "expires_at_ms")),
                **dict.fromkeys(("attempt", "lost", "strikes"), 0),
            )
            self._note_work()
            self.queue.publish(record.job)
            self._tell(job_id)
            return self._told(record.job)

    def due(self, heads: Heads, limit: int) -> list[str]:
        with self._lock:
            now = self._clock()
            return [
                job_id
                for job_id, record in self._records.items()
                if not record.job.status.is_final
                and (
                    now > record.job.deadline_ms
                    or (record.look_at_ms is not None and record.look_at_ms < now)
                    or (record.look_at_ms is None and self._has_left(record, heads))
                )
            ][:limit]

    def reap(self, job_ids: Sequence[str], heads: Heads) -> list[str]:
        with self._lock:
            return [job_id for job_id in job_ids if self._reap(job_id, heads)]

    def _reap(self, job_id: str, heads: Heads) -> bool:
        record = self._find(job_id)
        if record is None or record.job.status.is_final or self._end_if_late(record):
            return False
        now = self._clock()
        if record.job.status == JobStatus.RUNNING:
            if self._lease_is_live(record) or self._lose_worker(record):
                return False
            record.change()
            self._tell(job_id)
        elif self._is_out(record, heads):
            return False
        record.look_at_ms = None
        record.job = record.job.model_copy(update={"published_at_ms": now})
        self.queue.publish(record.job)
        return True

    def _check_room(self, owner: str | None, max_open: int, max_owned: int) -> None:
        known = self.admission(owner)
        if known.open >= max_open:
            raise QueueFull(known.open, max_open)
        if max_owned and known.owned >= max_owned:
            raise QuotaReached(known.owned, max_owned)

    def depth(self) -> Depth:
        with self._lock:
            open_ = [record for record in self._records.values() if not record.job.status.is_final]
            waiting = self._waiting()
            return Depth(
                open=len(open_),
                running=len(open_) - len(waiting),
                waiting={
                    priority: Waiting(
                        queued=len(
                            times := [job.published_at_ms for job in waiting if job.spec.priority == priority]
                        ),
                        oldest_published_at_ms=min(times, default=None),
                    )
                    for priority in Priority
                },
            )

    def _waiting(self) -> list[Job]:
        """Return the jobs that have a message, in the order in which that was published."""
        jobs = [
            record.job
            for record in self._records.values()
            if record.look_at_ms is None and not record.job.status.is_final
        ]
        return sorted(jobs, key=lambda job: (job.published_at_ms, job.id))

    def _told(self, job: Job) -> Job:
        """Return the job with where it stands."""
        waiting = self._waiting()
        own = [other.id for other in waiting if other.spec.priority == job.spec.priority]
        if job.id not in own:
            return job
        standing = Standing(
            ahead=own.index(job.id),
            others=len(waiting) - len(own),
            ended_lately=self._ended_lately(None),
            bulk_ended_lately=self._ended_lately(Priority.BULK),
            busy_ms_lately=self._busy_lately(),
        )
        return job.model_copy(update={"standing": standing})

    def drain_rate(self, priority: Priority | None = None) -> float:
        with self._lock:
            return self._ended_lately(priority) / DRAIN_WINDOW_SECONDS

    def service_rate(self) -> float:
        with self._lock:
            return service_rate(self._ended_lately(None), self._busy_lately())

    def _ended_lately(self, priority: Priority | None) -> int:
        ended = [time for time, kind in self._ended_at if priority in (None, kind)]
        return sum(1 for time in ended if time // INTERVAL_MS >= first_recent(self._clock()))

    def _busy_lately(self) -> int:
        return busy_ms(self._busy_ms, self._busy_since_ms, self._clock())

    def changes(self) -> Iterator[Change | None]:
        changed: queue.SimpleQueue[Change] = queue.SimpleQueue()
        self._listeners.append(changed)
        try:
            yield None
            while True:
                try:
                    yield changed.get(timeout=1.0)
                except queue.Empty:
                    yield None
        finally:
            self._listeners.remove(changed)

    def _known(self, job_id: str) -> Record:
        record = self._find(job_id)
        if record is None and not self._founded:
            raise LedgerRebuilding
        if record is None:
            raise no_such_job(job_id)
        return record

    def _held(self, job_id: str, token: str) -> Record | None:
        record = self._find(job_id)
        if record and record.job.status == JobStatus.RUNNING and record.token == token:
            return record
        return None

    def _was_ended_by(self, job_id: str, token: str, status: JobStatus) -> bool:
        record = self._find(job_id)
        return record is not None and record.ended_by == token and record.job.status == status

    def _lose_worker(self, record: Record) -> bool:
        lost = record.job.lost + 1
        record.job = record.job.model_copy(update={"lost": lost})
        if lost >= MOST_LOST_WORKERS:
            detail = (
                f"Every worker that ran this job was lost ({lost} times). "
                "Look at the workers, then submit it again."
            )
            self._finish(record, JobStatus.FAILED, error=JobError(code="ATTEMPTS_EXHAUSTED", detail=detail))
            return True
        record.token = ""
        record.job = record.job.model_copy(update={"status": JobStatus.QUEUED})
        return False

    def _is_out(self, record: Record, heads: Heads) -> bool:
        """Tell whether a queued job is held off, or may still have its message in the queue."""
        if record.look_at_ms is not None:
            return record.look_at_ms > self._clock()
        return not self._has_left(record, heads)

    def _has_left(self, record: Record, heads: Heads) -> bool:
        """Tell whether the message of a queued job, as every one before it, has left the queue."""
        return record.job.published_at_ms < watermark(heads, record.job.spec.priority, self._clock())
