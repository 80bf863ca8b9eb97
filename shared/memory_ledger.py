"""The records of the ledger in one process' memory, and how one of them ends."""

import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shared.deliveries import batch_subject, job_subject
from shared.deliveries_memory import MemoryDeliveries
from shared.drain import by_interval
from shared.job_store import Change
from shared.schemas import Batch, Job, JobError, JobStatus, NewBatch, Priority, wall_clock_ms
from shared.task_queue import MemoryTaskQueue


@dataclass
class Record:
    """A job and what only the ledger knows of it."""

    job: Job
    image_retention_ms: int
    retention_ms: int
    tombstone_ms: int
    patience_ms: int
    token: str = ""
    ended_by: str | None = None
    lease_until_ms: int = 0
    run_until_ms: int = 0
    #: When the reaper must look at it; None while a message is out for it.
    look_at_ms: int | None = None
    #: When the image, and after it the result, is to be dropped; None while open, and when both are gone.
    clean_at_ms: int | None = None
    image_gone: bool = False
    deleted: bool = False
    #: When its outcome is to be put into the object store; None while open, and once it is there.
    archive_at_ms: int | None = None
    #: Which end of its batch is its own; None while open, and for one that is in no batch.
    ended_as: int | None = None

    def change(self, **fields: Any) -> None:
        """Make a new version of the job, with these fields."""
        self.job = self.job.model_copy(update={"version": self.job.version + 1, **fields})


@dataclass
class BatchRecord:
    """A batch and what only the ledger knows of it."""

    new: NewBatch
    created_at_ms: int
    restored_at_ms: int | None = None
    is_whole: bool = False
    completed_at_ms: int | None = None
    job_ids: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)


class MemoryLedger:
    """All that there is, behind one lock."""

    def __init__(self, clock_ms: Callable[[], int] = wall_clock_ms, founded: bool = True) -> None:
        """`clock_ms` gives the time of every transition; not `founded`: as after a loss of data."""
        self._clock = clock_ms
        self._founded = founded
        self._sweep_until_ms = 0
        self._next_sweep_ms = 0
        #: What `memory_share` returns.
        self.memory_in_use = 0.0
        self._records: dict[str, Record] = {}
        self._idempotency: dict[str, tuple[str, str]] = {}
        self._answers: dict[str, str] = {}
        self._ended_at: list[tuple[int, Priority]] = []
        self._busy_ms: Counter[int] = Counter()
        self._busy_since_ms: int | None = None
        self._counted: Counter[str] = Counter()
        self._batches: dict[str, BatchRecord] = {}
        self._listeners: list[queue.SimpleQueue[Change]] = []
        #: Where the messages go.
        self.queue = MemoryTaskQueue()
        #: What webhooks are to be told.
        self.deliveries = MemoryDeliveries(clock_ms)
        self._lock = threading.RLock()

    def _find(self, job_id: str) -> Record | None:
        """Return the record, unless its tombstone is past its time too."""
        record = self._records.get(job_id)
        if record is None or record.job.expires_at_ms is None:
            return record
        if self._clock() <= record.job.expires_at_ms + record.tombstone_ms:
            return record
        del self._records[job_id]
        return None

    def _lease_is_live(self, record: Record) -> bool:
        return record.job.status == JobStatus.RUNNING and record.lease_until_ms > self._clock()

    def _end_if_late(self, record: Record) -> bool:
        late = self._clock() > record.job.deadline_ms
        if record.job.status.is_final or not late or self._lease_is_live(record):
            return False
        detail = (
            "The job waited in the queue longer than it was allowed to. "
            "Submit it again, with a longer expires_in."
        )
        self._finish(record, JobStatus.EXPIRED, error=JobError(code="DEADLINE_EXCEEDED", detail=detail))
        return True

    def _finish(self, record: Record, status: JobStatus, **fields: Any) -> None:
        now = self._clock()
        record.token = ""
        record.look_at_ms = None
        record.clean_at_ms = now + record.image_retention_ms
        record.archive_at_ms = now
        record.change(status=status, finished_at_ms=now, expires_at_ms=now + record.retention_ms, **fields)
        if not record.job.cached:
            self._ended_at.append((now, record.job.spec.priority))
        self._note_work()
        self._counted[status] += 1
        self.deliveries.announce(job_subject(record.job.id), record.job, record.job.spec.webhook_url)
        if record.job.spec.batch is not None:
            self._note_end_in_batch(record.job.spec.batch, record)
        self._tell(record.job.id)

    def _note_work(self) -> None:
        """Note since when some job is open, and as soon as none is any more, for how long one was."""
        now, is_idle = self._clock(), all(record.job.status.is_final for record in self._records.values())
        since = now if self._busy_since_ms is None else self._busy_since_ms
        if is_idle:
            self._busy_ms.update(by_interval(since, now))
        self._busy_since_ms = None if is_idle else since

    def _note_end_in_batch(self, batch_id: str, record: Record) -> None:
        batch = self._batches.get(batch_id)
        if batch is None:
            return
        batch.ends.append(record.job.id)
        record.ended_as = len(batch.ends)
        self._complete(batch)

    def _complete(self, batch: BatchRecord) -> None:
        members = [self._records[job_id] for job_id in batch.job_ids if job_id in self._records]
        is_over = batch.is_whole and all(member.job.status.is_final for member in members)
        if is_over and batch.completed_at_ms is None:
            batch.completed_at_ms = self._clock()
            whole = self._describe_batch(batch)
            self.deliveries.announce(batch_subject(whole.id), whole, batch.new.webhook_url)

    def _describe_batch(self, batch: BatchRecord) -> Batch:
        completed = batch.completed_at_ms
        members = [record for job_id in batch.job_ids if (record := self._find(job_id))]
        kept = [record.job for record in members if not record.deleted]
        counts = Counter(job.status for job in kept)
        return Batch(
            id=batch.new.id,
            owner=batch.new.owner,
            webhook_url=batch.new.webhook_url,
            created_at_ms=batch.created_at_ms,
            is_whole=batch.is_whole,
            completed_at_ms=completed,
            expires_at_ms=None if completed is None else completed + int(batch.new.retention_seconds * 1000),
            counts={status: counts[status] for status in JobStatus},
            deleted=len(members) - len(kept),
            reasons=dict(sorted(Counter(job.error.code for job in kept if job.error).items())),
            ends=len(batch.ends),
        )

    def _join_batch(self, job: Job, is_new: bool) -> None:
        batch = self._batches.get(job.spec.batch or "")
        if batch is not None:
            batch.completed_at_ms = None
            batch.job_ids += [job.id] if is_new else []

    def _tell(self, job_id: str) -> None:
        job = self._records[job_id].job
        for listener in self._listeners:
            listener.put(Change(job_id, job.status, (lambda: job) if job.status.is_final else None))


def forgotten(job: Job) -> dict[str, Any]:
    """Return what is left of these fields once the result is dropped."""
    return {"result": None, "error": None, "timings_ms": None, "spec": job.spec.forgotten()}
