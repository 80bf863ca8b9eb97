"""The job ledger: the only truth about a job, whatever the queue does.

Every change of a record is one atomic transition, and one that queues a job publishes its message too:

    create ─> queued ─claim─> running ─finish─> succeeded | failed
                │  ^             │
                │  └─ release, lost lease
                └── cancel ─> canceled, deadline ─> expired   (from `running` too)

    failed | canceled | expired ─retry─> queued               (at its owner's wish alone)

Otherwise a final status is never left. A job may be deleted: then only the word that it was there is kept. A
worker may repeat a call of its own whose answer was lost, and the connection repeats anybody's: it changes
nothing and gets the same answer. A ledger that has lost its data says so until all that the object store
knows is in it (`shared/sweep.py`).

`job_store_redis.py` is the real side, `job_store_memory.py` the one for tests; both are held to
`tests/contract/job_store/`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.batch_store import BatchStore
from shared.errors import (
    IdempotencyKeyReused,
    JobAlreadyFinal,
    JobNotFound,
    JobNotRetryable,
    JobStoreFull,
    ResultExpired,
)
from shared.schemas import Admission, Depth, Idempotency, Job, JobError, JobStatus, NewJob, Priority, Totals

#: A job ends as failed when this many workers were lost while they ran it.
MOST_LOST_WORKERS = 10
#: A message is taken to be lost when newer ones have left the queue and its job is still unclaimed after
#: this long; covers the moment between delivery and the claim.
REPUBLISH_AFTER_MS = 3_000
#: The object store is compared with the ledger this often, and at once when that has or may have lost data.
SWEEP_EVERY_SECONDS = 1800


#: When the message that leaves each queue next was published, in ms; None, or left out, where it is empty.
Heads = Mapping[Priority, int | None]


@dataclass(frozen=True)
class Created:
    """A submission's job: its own, or (`replayed`) the one that the same idempotency key made before."""

    job: Job
    replayed: bool


@dataclass(frozen=True)
class Canceled:
    """A job that was ended at its owner's wish; `was_running`: a worker was at it, its outcome is refused."""

    job: Job
    was_running: bool


@dataclass(frozen=True)
class Ending:
    """How a job ended with the worker that holds it by `token`: with a result, or with an error."""

    job_id: str
    token: str
    timings_ms: dict[str, float]
    result: dict[str, Any] | None = None
    error: JobError | None = None
    #: Where its result is looked up by later jobs, if it may be theirs too.
    answer_key: str | None = None


@dataclass(frozen=True)
class Change:
    """A job that has come to a status, or has a new version in the same one."""

    job_id: str
    status: JobStatus
    #: Reads the job as it ended; None where that is to be asked for.
    ended: Callable[[], Job] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Cleanable:
    """An ended job past a retention: that of the image under `image_key`, or else that of the result."""

    job_id: str
    image_key: str | None
    #: A heat map was asked for; it goes with the image.
    has_heatmap: bool
    #: Its owner wants nothing of it kept.
    deleted: bool


def watermark(heads: Heads, priority: Priority, now_ms: int) -> int:
    """Return the time before which every published message has left the queue of this priority."""
    head_ms = heads.get(priority)
    return min(now_ms, head_ms if head_ms is not None else now_ms) - REPUBLISH_AFTER_MS


def no_memory() -> JobStoreFull:
    """Return what says that the ledger has no memory for anything new."""
    return JobStoreFull(
        "Expected room in the job store for one more job. Found: too little. Ask again later."
    )


def key_reused() -> IdempotencyKeyReused:
    """Return what says that an idempotency key belongs to another request."""
    return IdempotencyKeyReused(
        "This Idempotency-Key was used with another image or other options. "
        "Send a new key with a new request."
    )


def no_such_job(job_id: str) -> JobNotFound:
    """Return what says that no job has this id."""
    return JobNotFound(f"No job has the id {job_id}. Expected an id that POST /predict returned.")


def result_expired(owner: str | None) -> ResultExpired:
    """Return what says that the result is dropped, for whatever reason."""
    return ResultExpired("The job was deleted, or is past its retention. Submit the image again.", owner)


def image_expired() -> ResultExpired:
    """Return what says that the job cannot be run again."""
    return ResultExpired("The image is past its retention and was dropped. Submit it again.")


def already_final(status: JobStatus) -> JobAlreadyFinal:
    """Return what says that a job with this status cannot be canceled."""
    return JobAlreadyFinal(f"Expected a queued or running job. This one has ended as {status}.")


def not_retryable(status: JobStatus) -> JobNotRetryable:
    """Return what says that a job with this status cannot be run once more."""
    return JobNotRetryable(f"Expected a job that failed, expired or was canceled. This one is {status}.")


class JobStore(BatchStore, Protocol):
    """What the ledger can do. Every method raises JobStoreUnavailable where it cannot answer in time."""

    def create(
        self, new: NewJob, max_open: int, accepted_at_ms: int | None = None, max_owned: int = 0
    ) -> Created:
        """Accept a job and publish its message, or find the one that its idempotency key made.

        `accepted_at_ms` restores a job that was accepted before this ledger lost its data.

        Raises:
            QueueFull: if `max_open` jobs are open already.
            QuotaReached: if `max_owned` jobs of its owner are; 0 is any number.
            IdempotencyKeyReused: if the key came with another request before.
            LedgerRebuilding: if the job has a key, and the ledger cannot tell yet whether it is new.
        """

    def admission(self, owner: str | None, answer_key: str | None = None) -> Admission:
        """Return what decides whether one more job of this owner is accepted, and what may answer it."""

    def answer(self, new: NewJob, answered_by: str) -> Created | None:
        """Record a job that has ended already, with another one's result; None where that is kept no more.

        It takes nobody's place: neither limit of `create` counts.

        Raises:
            IdempotencyKeyReused, LedgerRebuilding: as `create`.
        """

    def find_replay(self, idempotency: Idempotency) -> Job | None:
        """Return the job that this key made, before anything is stored for its repetition.

        Raises:
            IdempotencyKeyReused: if the key came with another request before.
            LedgerRebuilding: if the ledger cannot tell yet.
        """

    def get(self, job_id: str) -> Job:
        """Return a job; one that waited past its deadline is expired by this call.

        Raises:
            JobNotFound: if the id is unknown.
            ResultExpired: if the job is deleted, or final and past its retention.
            LedgerRebuilding: if the ledger cannot tell yet whether there is such a job.
        """

    def claim_all(
        self, tokens: Mapping[str, str], lease_seconds: float, max_run_seconds: float
    ) -> dict[str, Job]:
        """Take jobs for one worker in one exchange, each with the token of its id; safe to repeat.

        Returns:
            Those that were taken, by their ids: none that is unknown, final, or somebody else's. One that
            cannot be read is handed back.
        """

    def renew(self, job_id: str, token: str, lease_seconds: float) -> bool:
        """Prolong the lease; False where the token holds the job no more, or has held it too long."""

    def end_all(self, endings: Sequence[Ending]) -> list[bool | Exception]:
        """Write how jobs ended in one exchange; False for one that its token does not hold any more.

        An error stands in the place of one that was not written: JobStoreUnavailable, where it is to be tried
        again, or what is wrong with the ending.
        """

    def release(self, job_id: str, token: str, hold_seconds: float) -> bool:
        """Hand the job back, to be published again after the hold-off; the attempt is not counted."""

    def strike(self, job_id: str, token: str, strikes: int) -> bool:
        """Book that the engine has now died so often with this job alone in it; False if not held."""

    def cancel(self, job_id: str) -> Canceled:
        """End the job for good.

        Raises:
            JobNotFound: if the id is unknown.
            JobAlreadyFinal: if it had ended before.
        """

    def delete(self, job_id: str) -> str:
        """Forget the job: cancel it if it is open, drop its result, have its image cleaned; safe to repeat.

        Returns:
            Where its image lies.

        Raises:
            JobNotFound: if the id is unknown.
        """

    def retry(self, job_id: str, max_open: int, max_owned: int = 0) -> Job:
        """Queue and publish an ended job that has no result once more, under its own id.

        It has all its time before it.

        Raises:
            JobNotFound: if the id is unknown.
            JobNotRetryable: if it is open, or has succeeded.
            ResultExpired: if it is deleted, or its image is past its retention.
            QueueFull: if `max_open` jobs are open already.
            QuotaReached: if `max_owned` jobs of its owner are; 0 is any number.
        """

    def due(self, heads: Heads, limit: int) -> list[str]:
        """Return open jobs that seem to have neither message nor worker, or are past their deadline.

        `limit` is how many ids at the most of each sort.
        """

    def reap(self, job_ids: Sequence[str], heads: Heads) -> list[str]:
        """Put those jobs right, each in one transition; return those that were published again."""

    def cleanable(self, limit: int) -> list[Cleanable]:
        """Return ended jobs whose image, or after it whose result, is past its retention.

        Nobody else gets them for a while.
        """

    def cleaned(self, item: Cleanable) -> None:
        """Note that the image is gone, or drop the result; safe to repeat."""

    def unarchived(self, limit: int) -> list[Job]:
        """Return ended jobs whose outcome is not in the object store; nobody else gets them for a while."""

    def archived(self, jobs: Sequence[Job]) -> list[str]:
        """Note that these outcomes are there now; return the ids that were deleted or retried meanwhile.

        One that has ended anew is to be archived once more.
        """

    def unarchive(self, job_id: str) -> bool:
        """Note that an ended job's outcome is about to be removed there; False for one that has not ended.

        After a while it is to be archived once more, unless its job is retried before.
        """

    def unknown(self, job_ids: Sequence[str]) -> list[str]:
        """Return those that the ledger has no record of, in order."""

    def is_founded(self) -> bool:
        """Tell whether all that the object store knows is in this ledger, as far as anybody can say."""

    def found(self) -> None:
        """Note that it is."""

    def sweep_is_due(self) -> bool:
        """Tell whether it is time to compare it with the object store.

        It was long ago, data was lost, or may be: another server answers, or the same one was started again.
        """

    def begin_sweep(self, seconds: float) -> bool:
        """Take the right to compare them; False if somebody has it. It lapses after so long."""

    def hold_sweep(self, seconds: float) -> bool:
        """Prolong that right; False if it lapsed, or the ledger lost its data meanwhile.

        Also where somebody else has taken it since.
        """

    def end_sweep(self, is_whole: bool) -> bool:
        """Give that right back, and where the ledger `is_whole` now note that; False as for `hold_sweep`."""

    def now_ms(self) -> int:
        """Return the ledger's time, which all agree on whatever their machines' clocks say."""

    def totals(self) -> Totals:
        """Count what became of all jobs since this ledger began; one that lost its data begins anew."""

    def memory_share(self) -> float:
        """Return how much of the memory it may use is in use, 0 to 1; 0 where there is no limit."""

    def depth(self) -> Depth:
        """Count the open work."""

    def drain_rate(self, priority: Priority | None = None) -> float:
        """Return how many jobs (of this priority) ended per second, over the last minute."""

    def service_rate(self) -> float:
        """Return how many ended per second of that minute in which some job was open; 0 if none did."""

    def changes(self) -> Iterator[Change | None]:
        """Yield each change of a job; None about once a second, so that a listener can stop.

        The first is None, as soon as nothing is missed any more.
        """

    def ping(self) -> None:
        """Return if the store answers."""
