"""The batches of the ledger in memory: counted anew whenever they are asked for."""

from collections.abc import Sequence

from shared.batch_store import INTAKE_SECONDS, batch_expired, no_such_batch
from shared.errors import LedgerRebuilding
from shared.job_store import key_reused, no_memory
from shared.memory_ledger import BatchRecord, MemoryLedger, Record
from shared.schemas import Batch, Idempotency, Job, JobStatus, NewBatch


class MemoryBatches(MemoryLedger):
    """See `shared.batch_store.BatchStore` for what each method promises."""

    def create_batch(self, new: NewBatch, begun_at_ms: int | None = None, *, is_full: bool = False) -> str:
        with self._lock:
            if new.idempotency:
                fingerprint, known = self._idempotency.get(new.idempotency.key, ("", ""))
                if known in self._batches:
                    if fingerprint != new.idempotency.fingerprint:
                        raise key_reused()
                    if begun_at_ms is None:
                        # More members may come: until that is over, no end of one of them is the batch's.
                        self._batches[known].is_whole = False
                    return known
                if not self._founded and begun_at_ms is None:
                    raise LedgerRebuilding
            if is_full:
                raise no_memory()
            if new.idempotency:
                self._idempotency[new.idempotency.key] = (new.idempotency.fingerprint, new.id)
            now = self._clock()
            restored_at_ms = now if begun_at_ms else None
            self._batches.setdefault(new.id, BatchRecord(new, begun_at_ms or now, restored_at_ms))
            return new.id

    def batch(self, batch_id: str, seal: bool = False) -> Batch:
        with self._lock:
            batch = self._known_batch(batch_id)
            # One that is being restored has not all of its members yet.
            since = batch.restored_at_ms or batch.created_at_ms
            if seal or self._clock() - since > INTAKE_SECONDS * 1000:
                batch.is_whole = True
                self._complete(batch)
            found = self._describe_batch(batch)
            if found.expires_at_ms is not None and self._clock() > found.expires_at_ms:
                raise batch_expired(found.owner)
            return found

    def _known_batch(self, batch_id: str) -> BatchRecord:
        batch = self._batches.get(batch_id)
        if batch is not None and batch.completed_at_ms is not None:
            kept = batch.new.retention_seconds + batch.new.tombstone_seconds
            if self._clock() - batch.completed_at_ms > kept * 1000:
                batch = None
        if batch is None and not self._founded:
            raise LedgerRebuilding
        if batch is None:
            raise no_such_batch(batch_id)
        return batch

    def members(self, batch_id: str, start: int, count: int) -> list[str]:
        with self._lock:
            batch = self._batches.get(batch_id)
            return batch.job_ids[start : start + count] if batch else []

    def ended(self, batch_id: str, start: int, count: int) -> list[Job]:
        with self._lock:
            ends = self._batches[batch_id].ends if batch_id in self._batches else []
            numbered = list(enumerate(ends[start : start + count], start + 1))
            return [
                record.job
                for number, job_id in numbered
                if (record := self._find(job_id))
                and record.ended_as == number
                and self._clock() <= (record.job.expires_at_ms or 0)
            ]

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        with self._lock:
            records = [self._find(job_id) for job_id in job_ids]
            return [record.job.status if record and not record.deleted else None for record in records]

    def restore_ended(
        self,
        job: Job,
        image_retention_seconds: float,
        tombstone_seconds: float,
        idempotency: Idempotency | None = None,
    ) -> bool:
        with self._lock:
            batch_id = job.spec.batch
            if self._find(job.id) is not None or (batch_id and batch_id not in self._batches):
                return False
            finished, expires = job.finished_at_ms or 0, job.expires_at_ms or 0
            image_retention_ms = int(image_retention_seconds * 1000)
            record = self._records[job.id] = Record(
                job,
                image_retention_ms=image_retention_ms,
                retention_ms=expires - finished,
                tombstone_ms=int(tombstone_seconds * 1000),
                patience_ms=job.deadline_ms - job.created_at_ms,
                clean_at_ms=finished + image_retention_ms,
            )
            if batch_id:
                self._batches[batch_id].job_ids.append(job.id)
                self._note_end_in_batch(batch_id, record)
            self._counted["accepted"] += 1
            self._counted[job.status] += 1
            if idempotency:
                self._idempotency.setdefault(idempotency.key, (idempotency.fingerprint, job.id))
            return True
