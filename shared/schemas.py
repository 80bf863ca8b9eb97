"""The values that cross a process: a job, its message, a worker's report."""

import hashlib
import json
import re
import secrets
import time
import uuid
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

#: 128 random bits in the form of a UUID; nothing else is ever looked up or put into a key.
JOB_ID_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_job_id() -> str:
    """Return an id of 128 random bits: knowing it is what allows reading a result."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16)))


def is_job_id(text: str) -> bool:
    """Tell whether this could be an id of ours."""
    return JOB_ID_PATTERN.fullmatch(text) is not None


class JobStatus(StrEnum):
    """Where a job stands; the last four are final."""

    #: Recorded, and not claimed by a worker.
    QUEUED = "queued"
    #: Claimed by a worker under a lease.
    RUNNING = "running"
    #: Has a result.
    SUCCEEDED = "succeeded"
    #: Has an error that another try would not mend.
    FAILED = "failed"
    #: Ended by its owner.
    CANCELED = "canceled"
    #: Waited longer than it was allowed to.
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """A final status never changes again."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


class Priority(StrEnum):
    """Which of two queues a job waits in."""

    #: Somebody waits for it.
    INTERACTIVE = "interactive"
    #: One of many; it waits while interactive jobs do, and always gets a small share.
    BULK = "bulk"


#: A job that ended so has no result, and may be run once more.
RETRYABLE = frozenset({JobStatus.FAILED, JobStatus.EXPIRED, JobStatus.CANCELED})


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelRef(_Value):
    """The model version that a job was accepted for; new fields come last, the ledger goes by their order."""

    name: str
    version: str
    #: Digest of the weights file.
    sha256: str


class InputInfo(_Value):
    """The accepted image; new fields come last, the ledger goes by their order."""

    #: Where it lies in the object store.
    key: str
    sha256: str
    bytes: int
    width: int
    height: int
    media_type: str
    #: Micrometres per pixel, as the caller stated it.
    mpp: float | None = None


class JobSpec(_Value):
    """What was asked for; never changes after the job is accepted."""

    model: ModelRef
    input: InputInfo
    #: A heat map is to be made too.
    explain: bool = False
    custom_id: Annotated[str, Field(max_length=128)] | None = None
    #: Ties the worker's log lines to the request that made the job.
    request_id: str | None = None
    #: Id of the API key that it belongs to; None where the installation had none.
    owner: str | None = None
    priority: Priority = Priority.INTERACTIVE
    #: Id of the batch that it was submitted in.
    batch: str | None = None
    #: Who is told how it ended.
    webhook_url: str | None = None

    @property
    def answer_key(self) -> str | None:
        """What two jobs of one owner must have in common for one's result to be the other's too.

        None where it never is: a heat map is made for each job.
        """
        if self.explain:
            return None
        common = [self.owner, self.input.sha256, self.input.mpp, *self.model.model_dump().values()]
        return hashlib.sha256(json.dumps(common).encode()).hexdigest()[:32]

    def forgotten(self) -> "JobSpec":
        """Return what may be kept of it once its result is dropped: nothing in the caller's words."""
        return self.model_copy(update={"custom_id": None, "request_id": None, "webhook_url": None})


class JobError(_Value):
    """Why a job ended without a result."""

    code: str
    detail: str


class Standing(_Value):
    """What a queued job's place follows from; in the order in which the ledger and messages list it."""

    #: Queued jobs of its own priority that are ahead of it, and all of the other priority.
    ahead: int
    others: int
    #: How many jobs have ended in the last minute, how many of these were bulk ones, and for how many ms of
    #: it some job was open.
    ended_lately: int
    bulk_ended_lately: int
    busy_ms_lately: int

    @classmethod
    def of(cls, values: Sequence[int]) -> "Standing":
        """Read it from such a list.

        Raises:
            ValueError: if it is none.
        """
        return cls(**dict(zip(cls.model_fields, values, strict=True)))


class Job(_Value):
    """One image, one outcome: the ledger's record. Times are ms since the epoch, by Redis' clock."""

    id: str
    spec: JobSpec
    status: JobStatus
    #: Grows by one with every change; the ETag.
    version: int
    created_at_ms: int
    #: Until when it may wait in the queue.
    deadline_ms: int
    #: When its message was last published.
    published_at_ms: int
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    #: When a final job's result is dropped; None while it is open.
    expires_at_ms: int | None = None
    #: How often a worker has claimed it, releases not counted.
    attempt: int = 0
    #: How many of those workers were lost with it.
    lost: int = 0
    #: How often it killed a healthy engine while alone in it.
    strikes: int = 0
    #: Its result is another job's, for the same image: no worker ran it.
    cached: bool = False
    result: dict[str, Any] | None = None
    error: JobError | None = None
    timings_ms: dict[str, float] | None = None
    #: Where it stood in its queue when this was read; None where it does not wait in one.
    standing: Standing | None = Field(default=None, exclude=True)

    @property
    def is_suspect(self) -> bool:
        """A worker or an engine died with it once, so it runs alone from now on."""
        return self.lost > 0 or self.strikes > 0


class NewBatch(_Value):
    """All that the ledger needs to begin a batch."""

    id: str
    #: Id of the API key that it belongs to; None where the installation had none.
    owner: str | None = None
    #: Who is told that its last member has ended.
    webhook_url: str | None = None
    #: How long a member may wait in the queue.
    expires_in_seconds: float
    #: How long after its last end its results are kept, and after that the word that they expired.
    retention_seconds: float
    tombstone_seconds: float
    idempotency: "Idempotency | None" = None


class Batch(_Value):
    """Jobs that were submitted together. Times are ms since the epoch, by Redis' clock."""

    id: str
    owner: str | None
    webhook_url: str | None
    created_at_ms: int
    #: It gets no more members.
    is_whole: bool
    #: When its last member ended; None while one is open.
    completed_at_ms: int | None
    #: When its results are dropped; None while a member is open.
    expires_at_ms: int | None
    #: How many members are in each status; one that was deleted is in none.
    counts: dict[JobStatus, int]
    deleted: int
    #: How many members ended without a result, by the code of their error.
    reasons: dict[str, int]
    #: How often a member has ended: one that is retried ends again.
    ends: int


class NewJob(_Value):
    """All that the ledger needs to accept a job."""

    id: str
    spec: JobSpec
    #: How long it may wait in the queue.
    expires_in_seconds: float
    #: How long after its end its image is kept, its result, and after that the word that it has expired.
    image_retention_seconds: float
    retention_seconds: float
    tombstone_seconds: float
    idempotency: "Idempotency | None" = None


class Idempotency(_Value):
    """Makes a repeated submission give the first one's job."""

    #: The caller's key, scoped and hashed: the raw header never becomes part of a Redis key.
    key: str
    #: Digest of the image and every option: the same key must come with the same request.
    fingerprint: str


class Waiting(_Value):
    """How much work of one priority is queued."""

    queued: int
    #: When the job that has waited longest was published; None where nothing waits.
    oldest_published_at_ms: int | None


class Depth(_Value):
    """How much work is open."""

    open: int
    running: int
    waiting: dict[Priority, Waiting]

    @property
    def oldest_published_at_ms(self) -> int | None:
        """When the job that has waited longest was published; None where nothing waits."""
        oldest = [item.oldest_published_at_ms for item in self.waiting.values()]
        return min((time for time in oldest if time is not None), default=None)


class Admission(_Value):
    """What is known before anything of a submission is stored."""

    #: How many jobs are open, and how many of them are its owner's; 0 where it has none.
    open: int
    owned: int
    #: The ledger has all that the object store knows, as far as anybody can say.
    is_founded: bool
    #: A job that succeeded with the same answer key, and whose result may still be kept.
    answered_by: str | None


class Totals(_Value):
    """What became of all jobs since the ledger began, at one moment: accepted + retried = open + ended."""

    accepted: int
    retried: int
    open: int
    #: How many jobs came to each final status; a retried one may come to one again.
    ended: dict[JobStatus, int]


class WorkerStatus(_Value):
    """What a worker says of itself every few seconds."""

    name: str
    model_name: str
    model_version: str
    #: Milliseconds since the epoch, by that worker's clock: for people, never compared.
    reported_at_ms: int
    #: Versions of its model that it has tried and cannot run -> why; their jobs wait for another worker.
    refused: dict[str, str] = Field(default_factory=dict)


def wall_clock_ms() -> int:
    """Return this machine's time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
