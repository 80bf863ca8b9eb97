"""One message's way through the worker: claim, fetch, infer, record the outcome."""

import base64
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import stamina
import structlog

from shared import metrics
from shared.archive import Archive
from shared.crash_points import crash_point
from shared.envelope import MOST_ADDED_BYTES
from shared.errors import (
    EngineFailed,
    HistoQueueError,
    InputMissing,
    JobStoreUnavailable,
    ObjectStoreUnavailable,
    PoisonJob,
    Unavailable,
)
from shared.job_store import JobStore
from shared.object_store import ObjectStore
from shared.queue_order import eta_seconds
from shared.schemas import Job, JobError, Standing, is_job_id
from worker.batcher import Batcher, Draining, EngineUnusable, Unwanted
from worker.breaker import CrashBreaker
from worker.leases import Lease, LeaseKeeper
from worker.supervisor import Outcome

#: A job ends as failed when it killed a healthy engine this often while alone in it.
MOST_STRIKES = 2
#: What is away now may be back then.
HOLD_OFF_SECONDS = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class JobRunner:
    """Runs jobs, each in the thread of its message; every way out leaves the ledger in order."""

    jobs: JobStore
    objects: ObjectStore
    batcher: Batcher
    leases: LeaseKeeper
    breaker: CrashBreaker
    lease_seconds: float
    max_run_seconds: float

    def run(self, job_id: str, standing: object = None) -> None:
        """Take one job from its message to its outcome; returns when the message may be acknowledged.

        `standing`: what its client's ETA followed from, as the message has it.
        """
        if not is_job_id(job_id):
            _log.error("message_refused", reason="no job id")
            return
        with structlog.contextvars.bound_contextvars(job_id=job_id):
            try:
                self.breaker.wait_until_closed()
                self._claim_and_run(job_id, standing)
            except JobStoreUnavailable as error:
                # Unclaimed: the reaper publishes it again. Claimed: the lease lapses, and then it does.
                _log.warning("job_left_to_the_reaper", error=str(error))

    def _claim_and_run(self, job_id: str, standing: object) -> None:
        crash_point("worker.received")
        lease = Lease(job_id)
        job = self.jobs.claim(job_id, lease.token, self.lease_seconds, self.max_run_seconds)
        if job is None:
            _log.info("message_dropped", reason="unknown, final or held by another worker")
            return
        self.leases.add(lease)
        began = time.monotonic()
        crash_point("worker.claimed")
        try:
            with structlog.contextvars.bound_contextvars(request_id=job.spec.request_id):
                has_ended = self._outcome(job, lease)
        finally:
            self.leases.remove(lease)
        if has_ended and job.attempt == 1:
            ended_at_ms = (job.started_at_ms or 0) + 1000 * (time.monotonic() - began)
            _note_how_eta_held(job, standing, (ended_at_ms - job.published_at_ms) / 1000)

    def _outcome(self, job: Job, lease: Lease) -> bool:
        """Run the job to its outcome; False where it is handed back, or nobody wants it any more."""
        timings: dict[str, float] = {}
        try:
            outcome = self._infer(job, lease, timings)
        except Unwanted:
            metrics.ATTEMPTS.labels("dropped").inc()
            _log.info("job_dropped", reason="canceled, or lost to another worker")
        except Draining:
            self.jobs.release(job.id, lease.token, 0)
        except Unavailable as error:
            metrics.ATTEMPTS.labels("released").inc()
            _log.warning("job_released", reason=str(error))
            self.jobs.release(job.id, lease.token, HOLD_OFF_SECONDS)
        except HistoQueueError as error:
            self._finish(job, lease, {"error": {"code": error.code, "detail": error.detail}}, timings)
            return True
        else:
            self._finish(job, lease, outcome, timings)
            return True
        return False

    def _infer(self, job: Job, lease: Lease, timings: dict[str, float]) -> Outcome:
        with _timed(timings, "fetch"):
            image = self._fetch(job)
        crash_point("worker.fetched")
        alone, strikes = job.is_suspect, job.strikes
        while True:
            try:
                future = self.batcher.submit(
                    image, job.spec.model, alone, lambda: lease.is_held, job.spec.input.mpp, job.spec.explain
                )
                crash_point("worker.submitted")
                outcome = future.result()
            except EngineFailed as error:
                alone = True
                strikes += 1
                self._book(job, lease, strikes, image, error)
            else:
                crash_point("worker.inferred")
                self.breaker.worked()
                timings.update(outcome.get("timings_ms", {}))
                self._keep_heatmap(job, outcome, timings)
                return outcome

    def _book(self, job: Job, lease: Lease, strikes: int, image: bytes, error: EngineFailed) -> None:
        """Count a crash of the engine against the job that was alone in it; returns if it may try again."""
        metrics.ENGINE_FAILURES.inc()
        _log.warning("job_struck", strikes=strikes, error=str(error))
        self.breaker.crashed(job.id)
        if not self.jobs.strike(job.id, lease.token, strikes):
            raise Unwanted("The lease was lost.") from error
        crash_point("worker.struck")
        if strikes >= MOST_STRIKES:
            self._quarantine(job, image)
            raise PoisonJob(
                f"The image ended the engine {strikes} times while it was alone in it. "
                "Do not send it again as it is."
            ) from error
        if self.breaker.is_open:
            raise EngineUnusable("The engine dies with one job after the other.") from error

    def _quarantine(self, job: Job, image: bytes) -> None:
        try:
            Archive(self.objects).quarantine(job, image)
        except ObjectStoreUnavailable as error:
            # The copy is for whoever mends the engine; the job's outcome does not wait for it.
            _log.warning("not_quarantined", error=str(error))

    def _keep_heatmap(self, job: Job, outcome: Outcome, timings: dict[str, float]) -> None:
        """Store it before the outcome is known, so that whoever reads the result finds it."""
        if heatmap := outcome.get("heatmap"):
            with _timed(timings, "store"):
                Archive(self.objects).put_heatmap(job.id, base64.b64decode(heatmap))

    def _fetch(self, job: Job) -> bytes:
        accepted = job.spec.input
        try:
            # Behind the image stands the job that it was accepted for.
            image = self.objects.get(accepted.key, accepted.bytes + MOST_ADDED_BYTES)[: accepted.bytes]
        except (FileNotFoundError, ValueError) as error:
            raise InputMissing("The stored image is gone. Submit it again.") from error
        if hashlib.sha256(image).hexdigest() != accepted.sha256:
            raise InputMissing("The stored image is not the one that was accepted. Submit it again.")
        return image

    def _finish(self, job: Job, lease: Lease, outcome: Outcome, timings: dict[str, float]) -> None:
        """Write the outcome; tries for as long as the lease lasts, since the work is done."""
        for attempt in stamina.retry_context(
            on=JobStoreUnavailable, timeout=self.lease_seconds, attempts=20, wait_max=2
        ):
            with attempt:
                if "error" in outcome:
                    error = JobError(**outcome["error"])
                    written = self.jobs.fail(job.id, lease.token, error, timings)
                else:
                    written = self.jobs.succeed(
                        job.id, lease.token, outcome["result"], timings, job.spec.answer_key
                    )
        crash_point("worker.finished")
        metrics.ATTEMPTS.labels("failed" if "error" in outcome else "succeeded").inc()
        for stage, milliseconds in timings.items():
            metrics.STAGE_SECONDS.labels(stage).observe(milliseconds / 1000)
        if "error" in outcome:
            _log.info("job_failed", written=written, code=outcome["error"]["code"], **timings)
        else:
            _log.info("job_succeeded", written=written, **timings)


def _note_how_eta_held(job: Job, standing: object, seconds: float) -> None:
    """Compare how long the job took from its publication on with what its client was told then, if it was."""
    if not isinstance(standing, list):
        return
    try:
        eta = eta_seconds(job.spec.priority, Standing.of(standing))
    except ValueError:
        # Not a message of ours.
        return
    if eta is not None:
        metrics.ETA_ERROR_SECONDS.observe(seconds - eta)


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add how long the block took, in ms."""
    started = time.perf_counter()
    yield
    timings[name] = round((time.perf_counter() - started) * 1000, 2)
