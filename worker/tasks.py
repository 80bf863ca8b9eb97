"""The way of messages through the worker: claim, fetch, infer, record the outcome."""

import base64
import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import stamina
import structlog

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
from shared.schemas import Job, is_job_id
from worker import metrics
from worker.attempt import Message, Run, about, leave_to_the_reaper, timed
from worker.batcher import Batcher, Draining, EngineUnusable, Unwanted
from worker.breaker import CrashBreaker
from worker.endings import write_endings
from worker.gatherer import Gatherer
from worker.leases import Lease, LeaseKeeper
from worker.supervisor import Outcome

#: A job ends as failed when it killed a healthy engine this often while alone in it.
MOST_STRIKES = 2
#: What is away now may be back then.
HOLD_OFF_SECONDS = 5.0
#: How often the ledger is asked for a group of jobs before they are left to the reaper.
CLAIM_TRIES = 3
#: An image that is not there is looked for so many times, for half a second or so, before it is gone.
FETCH_TRIES = 3
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class RunLimits:
    """How long a worker keeps a job without a sign of life, and at the most."""

    lease_seconds: float
    run_seconds: float


class JobRunner:
    """Takes jobs from their messages to their outcomes; every way out leaves the ledger in order.

    Those whose messages wait together are claimed together, and those that the engine answers together end
    together, each time in one exchange with the ledger. A lone one waits for nobody, and one that takes long,
    or ends the engine, holds up no other.
    """

    def __init__(
        self,
        jobs: JobStore,
        objects: ObjectStore,
        batcher: Batcher,
        leases: LeaseKeeper,
        breaker: CrashBreaker,
        limits: RunLimits,
        pool: Executor,
        fetchers: Executor | None = None,
    ) -> None:
        """`pool` has a thread for each job that may be under way at once.

        `fetchers` fetch images side by side; None: one after the other, which is faster from a disk.
        """
        self._jobs = jobs
        self._objects = objects
        self.batcher = batcher
        self.leases = leases
        self.breaker = breaker
        self._limits = limits
        self._fetchers = fetchers
        self._pool = pool
        self._arrived: Gatherer[Message] = Gatherer(lambda: self._pool.submit(self._begin))
        self._answered: Gatherer[Run] = Gatherer(lambda: self._pool.submit(self._conclude_answered))
        self._claiming = threading.Lock()
        self._open = 0
        self._changed = threading.Condition()

    def run(self, job_id: str, standing: object = None) -> None:
        """Take one job from its message to its outcome; returns when the message may be acknowledged."""
        has_ended = threading.Event()
        self.take(Message(job_id, standing, has_ended.set))
        has_ended.wait()

    def take(self, message: Message) -> None:
        """Begin with a message, and return at once."""
        with self._changed:
            self._open += 1
        self._arrived.put(message)

    def stop(self, seconds: float | None = None) -> bool:
        """Return when all that was taken has ended or is handed back; nothing is to be taken after it.

        Returns:
            Whether it has; after so many `seconds`, False.
        """
        with self._changed:
            is_done = self._changed.wait_for(lambda: not self._open, seconds)
        for pool in (self._pool, self._fetchers):
            if pool:
                pool.shutdown(wait=is_done)
        return is_done

    def _let_go(self, message: Message) -> None:
        message.ended()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _begin(self) -> None:
        runs: list[Run] = []
        with self._claiming:
            # Whoever came while another group was claimed is in this one.
            messages = self._arrived.take()
            try:
                runs = self._claim(messages)
            except Exception:  # noqa: BLE001 - logged whole
                _log.exception("jobs_left_to_the_reaper", jobs=[message.job_id for message in messages])
        claimed = {run.message for run in runs}
        for message in messages:
            if message not in claimed:
                self._let_go(message)
        list((self._fetchers.map if self._fetchers and len(runs) > 1 else map)(self._submit, runs))

    def _claim(self, messages: Sequence[Message]) -> list[Run]:
        """Return the attempts at those jobs that are now this worker's."""
        named = {message.job_id: message for message in messages if _is_ours(message)}
        if not named:
            return []
        # What a worker that is shutting down has claimed it hands back, and the next one has it at once.
        self.breaker.wait_until_closed(lambda: self.batcher.is_draining)
        crash_point("worker.received")
        leases = {job_id: Lease(job_id) for job_id in named}
        tokens = {job_id: lease.token for job_id, lease in leases.items()}
        try:
            # With the same tokens: a claim whose answer was lost is this worker's, and nobody else has it.
            for attempt in stamina.retry_context(
                on=JobStoreUnavailable, timeout=self._limits.lease_seconds, attempts=CLAIM_TRIES, wait_max=2
            ):
                with attempt:
                    claimed = self._jobs.claim_all(
                        tokens, self._limits.lease_seconds, self._limits.run_seconds
                    )
        except JobStoreUnavailable as error:
            for job_id in named:
                leave_to_the_reaper(job_id, error)
            return []
        for job_id in named.keys() - claimed.keys():
            _log.info("message_dropped", job_id=job_id, reason="unknown, final or held by another worker")
        runs = [Run(named[job_id], job, leases[job_id]) for job_id, job in claimed.items()]
        for run in runs:
            self.leases.add(run.lease)
            crash_point("worker.claimed")
        return runs

    def _submit(self, run: Run) -> None:
        """Fetch the image and give it to the engine."""
        with about(run):
            try:
                with timed(run.timings, "fetch"):
                    run.image = self._fetch(run.job)
                crash_point("worker.fetched")
                run.future = self._infer(run, run.job.is_suspect)
                crash_point("worker.submitted")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is how the run ends
                run.future.set_exception(error)
        run.future.add_done_callback(lambda _: self._answered.put(run))

    def _infer(self, run: Run, alone: bool) -> Future[Outcome]:
        spec, lease = run.job.spec, run.lease
        return self.batcher.submit(
            run.image, spec.model, alone, lambda: lease.is_held, spec.input.mpp, spec.explain
        )

    def _conclude_answered(self) -> None:
        together = []
        for run in self._answered.take():
            if run.job.spec.explain or isinstance(run.future.exception(), EngineFailed):
                # Its heat map is stored first, or it is tried again.
                self._pool.submit(self._conclude, [run])
            else:
                together.append(run)
        self._conclude(together)

    def _conclude(self, runs: Sequence[Run]) -> None:
        try:
            write_endings(self._jobs, [(run, self._settled(run)) for run in runs], self._limits.lease_seconds)
        except Exception:  # noqa: BLE001 - logged whole
            _log.exception("jobs_left_to_the_reaper", jobs=[run.job.id for run in runs])
        finally:
            for run in runs:
                # Whatever happened: what nobody works at is not to look as if somebody did.
                self.leases.remove(run.lease)
                self._let_go(run.message)

    def _settled(self, run: Run) -> Outcome | None:
        """Return how the job ended; None where it is handed back, or nobody wants it any more."""
        job, lease = run.job, run.lease
        with about(run):
            try:
                outcome = self._answer(run)
                crash_point("worker.inferred")
                self.breaker.worked()
                run.timings.update(outcome.get("timings_ms", {}))
                self._keep_heatmap(job, outcome, run.timings)
            except Unwanted:
                metrics.ATTEMPTS.labels("dropped").inc()
                _log.info("job_dropped", reason="canceled, or lost to another worker")
            except Draining:
                metrics.ATTEMPTS.labels("released").inc()
                self._release(job, lease, 0)
            except Unavailable as error:
                metrics.ATTEMPTS.labels("released").inc()
                _log.warning("job_released", reason=str(error))
                self._release(job, lease, HOLD_OFF_SECONDS)
            except HistoQueueError as error:
                return {"error": {"code": error.code, "detail": error.detail}}
            except Exception:  # noqa: BLE001 - logged whole
                # A bug of ours, which is to spoil no other's outcome.
                _log.exception("job_left_to_the_reaper")
            else:
                return outcome
            return None

    def _answer(self, run: Run) -> Outcome:
        """Return the engine's answer; as long as the image ends the engine alone, book that and try again."""
        strikes = run.job.strikes
        while isinstance(crash := run.future.exception(), EngineFailed):
            strikes += 1
            self._book(run.job, run.lease, strikes, run.image, crash)
            run.future = self._infer(run, alone=True)
        return run.future.result()

    def _release(self, job: Job, lease: Lease, hold_seconds: float) -> None:
        try:
            self._jobs.release(job.id, lease.token, hold_seconds)
        except JobStoreUnavailable as error:
            leave_to_the_reaper(job.id, error)

    def _book(self, job: Job, lease: Lease, strikes: int, image: bytes, error: EngineFailed) -> None:
        """Count a crash of the engine against the job that was alone in it; returns if it may try again."""
        metrics.ENGINE_FAILURES.inc()
        _log.warning("job_struck", strikes=strikes, error=str(error))
        self.breaker.crashed(job.id)
        if not self._jobs.strike(job.id, lease.token, strikes):
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
            Archive(self._objects).quarantine(job, image)
        except ObjectStoreUnavailable as error:
            # The copy is for whoever mends the engine; the job's outcome does not wait for it.
            _log.warning("not_quarantined", error=str(error))

    def _keep_heatmap(self, job: Job, outcome: Outcome, timings: dict[str, float]) -> None:
        """Store it before the outcome is known, so that whoever reads the result finds it."""
        if heatmap := outcome.get("heatmap"):
            with timed(timings, "store"):
                Archive(self._objects).put_heatmap(job.id, base64.b64decode(heatmap))

    def _fetch(self, job: Job) -> bytes:
        accepted = job.spec.input
        try:
            # A server over a folder takes an object away for a moment while the same one is put there again.
            for attempt in stamina.retry_context(on=FileNotFoundError, attempts=FETCH_TRIES, wait_max=1):
                with attempt:
                    # Behind the image stands the job that it was accepted for.
                    sealed = self._objects.get(accepted.key, accepted.bytes + MOST_ADDED_BYTES)
        except (FileNotFoundError, ValueError) as error:
            raise InputMissing("The stored image is gone. Submit it again.") from error
        image = sealed[: accepted.bytes]
        if hashlib.sha256(image).hexdigest() != accepted.sha256:
            raise InputMissing("The stored image is not the one that was accepted. Submit it again.")
        return image


def _is_ours(message: Message) -> bool:
    if not is_job_id(message.job_id):
        _log.error("message_refused", reason="no job id")
        return False
    return True
