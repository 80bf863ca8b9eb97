"""What answers look like: the schemas of /openapi.json, which tests hold the answers to."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.deliveries import DeliveryState
from shared.schemas import JobStatus, Priority


class Body(BaseModel):
    """An object that may gain members."""

    model_config = ConfigDict(protected_namespaces=())


class Problem(Body):
    """Why a request was refused, or a job has no result (RFC 9457)."""

    type: str = Field(description="Leads to the code's heading in the reference of errors.")
    title: str
    status: int
    detail: str = Field(description="What was expected and what came.")
    instance: str
    code: str = Field(description="The word for programs.")
    retryable: bool = Field(description="The same request may succeed later.")
    request_id: str | None


class Queue(Body):
    """Where a queued job stands; null where that is unknown."""

    position: int | None
    eta_seconds: float | None


class Model(Body):
    """The model version that the job is pinned to."""

    name: str
    version: str
    sha256: str


class Input(Body):
    """The accepted image."""

    sha256: str
    bytes: int
    width: int
    height: int
    media_type: str
    mpp: float | None


class Links(Body):
    """Where to go on: paths on this server, null where there is nothing to follow."""

    self: str
    cancel: str | None
    retry: str | None
    events: str
    heatmap: str | None
    deliveries: str | None


class Job(Body):
    """One image and its one outcome. Research use only, not for diagnostic use."""

    id: str
    status: JobStatus
    custom_id: str | None
    priority: Priority
    cached: bool
    created_at: str
    started_at: str | None
    finished_at: str | None
    expires_at: str | None
    attempt: int
    queue: Queue | None
    model: Model
    input: Input
    result: dict[str, Any] | None
    error: Problem | None
    timings_ms: dict[str, float] | None
    batch: str | None
    links: Links


class DeliveryTry(Body):
    """One attempt at a delivery."""

    at: str
    status: int | None = Field(description="The receiver's answer; null where there was none.")
    error: str | None = Field(description="One word; null for a 2xx.")
    duration_ms: int


class Delivery(Body):
    """One event of a job or a batch, and what became of telling it."""

    id: str = Field(description="The `webhook-id`, the same at every attempt.")
    event: str
    state: DeliveryState
    announced_at: str
    attempt: int = Field(description="How many were begun.")
    next_attempt_at: str | None
    tries: list[DeliveryTry] = Field(description="Newest first.")


class DeliveriesLinks(Body):
    """Where to go on."""

    job: str
    redeliver: str | None


class Deliveries(Body):
    """What the webhook of a job was told, and is to be told."""

    job: str
    disabled: bool = Field(description="The receiver answered 410: nothing more of this job is told.")
    deliveries: list[Delivery]
    links: DeliveriesLinks


class BatchDeliveriesLinks(Body):
    """Where to go on."""

    batch: str
    redeliver: str | None


class BatchDeliveries(Body):
    """What the webhook of a batch was told, and is to be told."""

    batch: str
    disabled: bool = Field(description="The receiver answered 410: nothing more of this batch is told.")
    deliveries: list[Delivery]
    links: BatchDeliveriesLinks


class BatchLinks(Body):
    """Where to go on: paths on this server, null where there is nothing to do."""

    self: str
    results: str
    cancel: str | None
    retry: str | None
    deliveries: str | None


class Batch(Body):
    """Jobs that were submitted together."""

    id: str
    status: Literal["accepting", "running", "completed"]
    created_at: str
    completed_at: str | None
    expires_at: str | None
    total: int
    counts: dict[str, int] = Field(description="By status; and how many were deleted.")
    reasons: dict[str, int] = Field(
        description="Jobs that ended without a result, by the code of their error."
    )
    links: BatchLinks


class ItemLinks(Body):
    """Where the job is."""

    self: str


class Item(Body):
    """An item that was accepted."""

    custom_id: str
    id: str
    links: ItemLinks


class ItemProblem(Problem):
    """Why an item was not accepted."""

    custom_id: str


class SubmittedBatch(Batch):
    """A batch, and what became of each item that was sent."""

    accepted: int
    rejected: int
    items: list[Item]
    problems: list[ItemProblem]


class MemberProblem(Problem):
    """Why a job of a batch stays as it was."""

    id: str


class _ChangedBatch(Batch):
    """A batch, and what a request did to its jobs."""

    left: int = Field(description="Jobs that were not reached: the same request again goes on with them.")
    problems: list[MemberProblem]


class CanceledBatch(_ChangedBatch):
    """A batch whose open jobs are ended."""

    canceled: int


class RetriedBatch(_ChangedBatch):
    """A batch whose jobs without a result are queued once more."""

    retried: int


SCHEMAS = (Problem, Job, Deliveries, BatchDeliveries, Batch, SubmittedBatch, CanceledBatch, RetriedBatch)
