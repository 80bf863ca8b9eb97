"""A ledger and an object store whose time, and whose losses, are in the test's hand."""

import io
from dataclasses import replace

import pytest

from shared.archive import Archive
from shared.batch_archive import BatchArchive
from shared.envelope import AcceptedJob, seal
from shared.job_store_memory import MemoryJobStore
from shared.schemas import Idempotency, Job, NewBatch, NewJob, new_job_id
from shared.services import Services, in_memory
from shared.settings import Settings
from shared.sweep import Sweep, Swept
from tests.work import claim, new_job, succeed

SETTINGS = Settings()


HOUR = 3600.0


class World:
    """One installation, whose time and whose Redis are in the test's hand."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000
        self.services: Services = in_memory(SETTINGS, lambda: self.now_ms)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += int(seconds * 1000)

    def accept(
        self,
        key: str | None = None,
        record: bool = True,
        expires_in: float = HOUR,
        batch: str | None = None,
        fingerprint: str = "f",
    ) -> NewJob:
        """Do what the API does; without `record`, as a request does that breaks off half-way."""
        repeat = Idempotency(key=key, fingerprint=fingerprint) if key else None
        new = new_job(mpp=0.5, expires_in=expires_in, idempotency=repeat, batch=batch)
        file = io.BytesIO(b"image")
        seal(file, AcceptedJob(job=new, accepted_at_ms=self.now_ms))
        self.services.objects.put(new.spec.input.key, file, "image/png")
        if record:
            self.services.jobs.create(new, 1000)
        return new

    def begin_batch(
        self, members: int, is_whole: bool = True, key: str = "batch", fingerprint: str = "f"
    ) -> tuple[NewBatch, list[NewJob]]:
        """Do what the API does with a batch."""
        batch = NewBatch(
            id=new_job_id(),
            owner="a",
            expires_in_seconds=HOUR,
            retention_seconds=600,
            tombstone_seconds=600,
            idempotency=Idempotency(key=key, fingerprint=fingerprint),
        )
        self.services.jobs.create_batch(batch)
        archive = BatchArchive(self.services.objects)
        archive.put(batch, self.now_ms)
        jobs = [self.accept(batch=batch.id) for _ in range(members)]
        archive.put_members(batch.id, [job.id for job in jobs])
        if is_whole:
            self.services.jobs.batch(batch.id, seal=True)
            archive.put_whole(batch.id)
        return batch, jobs

    def finish(self, new: NewJob) -> Job:
        """Do what a worker and its archiver do."""
        jobs = self.services.jobs
        assert claim(jobs, new.id)
        assert succeed(jobs, new.id, {"class": "lung_n"})
        job = jobs.get(new.id)
        Archive(self.services.objects).put(job)
        jobs.archived([job])
        return job

    def wipe(self) -> None:
        """Redis is there, and empty."""
        jobs = MemoryJobStore(lambda: self.now_ms, founded=False)
        self.services = replace(self.services, jobs=jobs, queue=jobs.queue)

    def sweep(self) -> Swept | None:
        """Compare once; waiting only moves the clock."""
        return Sweep(self.services, SETTINGS, lambda: self.now_ms, self.advance).run()


@pytest.fixture
def world() -> World:
    return World()
