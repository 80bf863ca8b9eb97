"""The upkeep of the ledger in memory: what is to be archived, dropped, compared and counted."""

from collections.abc import Sequence

from shared.deliveries import job_subject
from shared.job_store import SWEEP_EVERY_SECONDS, Cleanable
from shared.memory_ledger import MemoryLedger, forgotten
from shared.schemas import Job, JobStatus, Totals


class MemoryUpkeep(MemoryLedger):
    """The part of `shared.job_store.JobStore` that no request waits for, and its counts."""

    def cleanable(self, limit: int) -> list[Cleanable]:
        with self._lock:
            now = self._clock()
            due = [
                (job_id, record)
                for job_id, record in self._records.items()
                if record.clean_at_ms is not None and record.clean_at_ms < now
            ][:limit]
            for _, record in due:
                record.clean_at_ms = now + 30_000
            return [
                Cleanable(
                    job_id,
                    None if record.image_gone else record.job.spec.input.key,
                    not record.image_gone and record.job.spec.explain,
                    record.deleted,
                )
                for job_id, record in due
            ]

    def cleaned(self, item: Cleanable) -> None:
        with self._lock:
            record = self._find(item.job_id)
            if record is None or record.clean_at_ms is None:
                return
            if item.image_key is not None:
                record.image_gone = True
                record.clean_at_ms = self._clock() + 60_000 if record.deleted else record.job.expires_at_ms
            elif record.deleted or self._clock() > (record.job.expires_at_ms or 0):
                self.deliveries.forget(job_subject(item.job_id))
                record.clean_at_ms = None
                record.job = record.job.model_copy(update=forgotten(record.job))

    def unarchived(self, limit: int) -> list[Job]:
        with self._lock:
            now = self._clock()
            due = [
                record
                for record in self._records.values()
                if record.archive_at_ms is not None and record.archive_at_ms <= now
            ][:limit]
            for record in due:
                record.archive_at_ms = now + 30_000
            return [record.job for record in due]

    def archived(self, jobs: Sequence[Job]) -> list[str]:
        with self._lock:
            unwanted = []
            for job in jobs:
                record = self._find(job.id)
                if record is None:
                    continue
                if record.deleted or not record.job.status.is_final:
                    unwanted.append(job.id)
                else:
                    is_same = record.job.version == job.version
                    record.archive_at_ms = None if is_same else self._clock()
            return unwanted

    def unarchive(self, job_id: str) -> bool:
        with self._lock:
            record = self._find(job_id)
            if record is None or record.deleted or not record.job.status.is_final:
                return False
            record.archive_at_ms = self._clock() + 30_000
            return True

    def unknown(self, job_ids: Sequence[str]) -> list[str]:
        with self._lock:
            return [job_id for job_id in job_ids if self._find(job_id) is None]

    def is_founded(self) -> bool:
        return self._founded

    def found(self) -> None:
        self._founded = True

    def sweep_is_due(self) -> bool:
        return self._clock() >= self._next_sweep_ms

    def begin_sweep(self, seconds: float) -> bool:
        with self._lock:
            if self._clock() < self._sweep_until_ms:
                return False
            self._sweep_until_ms = self._clock() + int(seconds * 1000)
            return True

    def hold_sweep(self, seconds: float) -> bool:
        with self._lock:
            if self._clock() >= self._sweep_until_ms:
                return False
            self._sweep_until_ms = self._clock() + int(seconds * 1000)
            return True

    def end_sweep(self, is_whole: bool) -> bool:
        with self._lock:
            if self._clock() >= self._sweep_until_ms:
                return False
            self._sweep_until_ms = 0
            if is_whole:
                self._founded = True
                self._next_sweep_ms = self._clock() + SWEEP_EVERY_SECONDS * 1000
            return True

    def now_ms(self) -> int:
        return self._clock()

    def totals(self) -> Totals:
        with self._lock:
            return Totals(
                accepted=self._counted["accepted"],
                retried=self._counted["retried"],
                open=sum(1 for record in self._records.values() if not record.job.status.is_final),
                ended={status: self._counted[status] for status in JobStatus if status.is_final},
            )

    def memory_share(self) -> float:
        return self.memory_in_use

    def ping(self) -> None:
        """Memory is always there."""
