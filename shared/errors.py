"""Every error of HistoQueue, branched by who must act.

HistoQueueError
├── CallerError                the caller must change the request; asking again as it is never helps
│   ├── InvalidRequest
│   ├── NotAuthenticated
│   ├── Forbidden
│   ├── RequestTooLarge
│   ├── ImageTooLarge
│   ├── UnsupportedImageFormat
│   ├── InvalidImage
│   ├── UnknownModelVersion
│   ├── IdempotencyKeyReused
│   ├── JobNotFound
│   ├── NoHeatmap
│   ├── JobChanged
│   ├── JobAlreadyFinal
│   ├── JobNotRetryable
│   ├── WebhooksOff
│   ├── WebhookRefused
│   ├── NoDelivery
│   ├── ResultExpired
│   ├── BatchNotFound
│   ├── BatchTooLarge
│   ├── InvalidItem
│   ├── NothingValid
│   └── CustomIdRepeated
├── Unavailable                time must pass; the same call may succeed later
│   ├── JobStoreUnavailable
│   │   └── LedgerRebuilding
│   ├── JobStoreFull
│   ├── ObjectStoreUnavailable
│   ├── QueueUnavailable
│   ├── QueueFull
│   │   └── QuotaReached
│   ├── RateLimited
│   ├── NoModel
│   └── EngineFailed
│       ├── EngineCrashed
│       ├── EngineTimedOut
│       └── EngineOutOfMemory
├── JobFailed                  this job is over; the system and its other jobs are well
│   ├── InputMissing
│   ├── ModelError
│   └── PoisonJob
└── OperatorError              the operator must mend a model or a setting
    └── InvalidModel

`code` is the word that clients see; `shared/problems.py` alone says which HTTP status that is.
"""

from collections.abc import Sequence
from typing import ClassVar


class HistoQueueError(Exception):
    """Base of everything raised on purpose; its text is safe to show to a client."""

    code: ClassVar[str] = "INTERNAL"

    @property
    def detail(self) -> str:
        """What was expected, what came, and what to do."""
        return str(self)


def cause_of(error: Exception) -> str | None:
    """Return what lies behind an error, with addresses: for the operator's log, never for a client."""
    return str(error.__cause__) if error.__cause__ else None


def explain(error: "HistoQueueError") -> str:
    """Return an error in one line for the operator's terminal; of a server that is away, why it is."""
    cause = cause_of(error) if isinstance(error, Unavailable) else None
    return f"{error.code}: {cause or error}"


class CallerError(HistoQueueError):
    """The request must change."""


class InvalidRequest(CallerError):
    """A malformed form, an unknown option or a value out of range."""

    code = "INVALID_REQUEST"


class NotAuthenticated(CallerError):
    """The request brings no API key, or one that opens nothing."""

    code = "UNAUTHENTICATED"


class Forbidden(CallerError):
    """The API key does not allow this, or without one another site's page asks."""

    code = "FORBIDDEN"


class RequestTooLarge(CallerError):
    """More bytes than one upload may have."""

    code = "REQUEST_TOO_LARGE"


class ImageTooLarge(CallerError):
    """More pixels than one image may have."""

    code = "IMAGE_TOO_LARGE"


class UnsupportedImageFormat(CallerError):
    """The content is no JPEG, PNG or TIFF, whatever its declared type."""

    code = "UNSUPPORTED_IMAGE_FORMAT"


class InvalidImage(CallerError):
    """The right type, but it cannot be decoded."""

    code = "INVALID_IMAGE"


class UnknownModelVersion(CallerError):
    """The model store has no such version."""

    code = "UNKNOWN_MODEL_VERSION"


class IdempotencyKeyReused(CallerError):
    """The same key came with another image or other options."""

    code = "IDEMPOTENCY_KEY_REUSED"


class JobNotFound(CallerError):
    """This id was never issued, or its tombstone is gone too."""

    code = "JOB_NOT_FOUND"


class NoHeatmap(CallerError):
    """The job is known, and has no heat map."""

    code = "NO_HEATMAP"


class JobChanged(CallerError):
    """The job is in another version than the one that a change of it is bound to."""

    code = "JOB_CHANGED"


class JobAlreadyFinal(CallerError):
    """The job has ended and cannot be changed any more."""

    code = "JOB_ALREADY_FINAL"


class JobNotRetryable(CallerError):
    """Only a job that failed, expired or was canceled can be run once more."""

    code = "JOB_NOT_RETRYABLE"


class WebhooksOff(CallerError):
    """This installation has no secret to sign webhooks with, so it sends none."""

    code = "WEBHOOKS_OFF"


class WebhookRefused(CallerError):
    """The webhook's URL leads to an address that nothing is sent to."""

    code = "WEBHOOK_REFUSED"


class NoDelivery(CallerError):
    """The job has no delivery yet that could be made once more."""

    code = "NO_DELIVERY"


class ResultExpired(CallerError):
    """The job is known, but its result is past its retention; `owner` is whose it was."""

    code = "RESULT_EXPIRED"

    def __init__(self, detail: str, owner: str | None = None) -> None:
        super().__init__(detail)
        self.owner = owner


class BatchNotFound(CallerError):
    """No batch has this id, or its tombstone is gone too."""

    code = "BATCH_NOT_FOUND"


class BatchTooLarge(CallerError):
    """More bytes or more items than one batch may have."""

    code = "BATCH_TOO_LARGE"


class InvalidItem(CallerError):
    """An item of a batch that is no file of its own: its name, or how it is packed."""

    code = "INVALID_ITEM"


class NothingValid(CallerError):
    """No item of the batch can become a job; `problems` says why of the first ones."""

    code = "NOTHING_VALID"

    def __init__(self, detail: str, problems: Sequence[tuple[str, HistoQueueError]]) -> None:
        super().__init__(detail)
        self.problems = problems


class CustomIdRepeated(CallerError):
    """Two items of a batch have the same name, so that their results could not be told apart."""

    code = "CUSTOM_ID_REPEATED"


class Unavailable(HistoQueueError):
    """Something that this call needs is away; `retry_after_seconds` says when to ask again."""

    code = "UNAVAILABLE"

    def __init__(self, detail: str, retry_after_seconds: int = 5) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class JobStoreUnavailable(Unavailable):
    """Redis did not answer in time, or refused."""

    code = "JOB_STORE_UNAVAILABLE"


class LedgerRebuilding(JobStoreUnavailable):
    """Redis lost its data, and not everything that the object store knows is in the ledger again."""

    code = "LEDGER_REBUILDING"

    def __init__(self) -> None:
        super().__init__(
            "The ledger lost its data and is being rebuilt from the object store. Nothing is lost; ask again."
        )


class JobStoreFull(Unavailable):
    """Redis has so little memory left that only the work already accepted may use it."""

    code = "JOB_STORE_FULL"


class ObjectStoreUnavailable(Unavailable):
    """The object store did not answer in time, or refused."""

    code = "OBJECT_STORE_UNAVAILABLE"


class QueueUnavailable(Unavailable):
    """The message could not be published; the reaper will publish it."""

    code = "QUEUE_UNAVAILABLE"


class QueueFull(Unavailable):
    """As many jobs are open as this installation admits."""

    code = "QUEUE_FULL"

    def __init__(self, depth: int, limit: int, retry_after_seconds: int = 5) -> None:
        super().__init__(
            f"Expected fewer than {limit} open jobs. Found: {depth}. Ask again later.",
            retry_after_seconds,
        )
        self.depth = depth
        self.limit = limit


class QuotaReached(QueueFull):
    """As many jobs of this API key are open as one key may have."""

    code = "QUOTA_REACHED"


class RateLimited(Unavailable):
    """This API key sends more requests than one key may."""

    code = "RATE_LIMITED"


class NoModel(Unavailable):
    """The model store holds no live version yet."""

    code = "NO_MODEL"


class EngineFailed(Unavailable):
    """The engine process ended before it answered."""

    code = "ENGINE_FAILED"


class EngineCrashed(EngineFailed):
    """The engine process died by itself: a signal, an exit, a broken pipe."""


class EngineTimedOut(EngineFailed):
    """The engine process gave no answer by the deadline of its micro-batch, and was killed."""


class EngineOutOfMemory(EngineFailed):
    """The engine process took more memory than it may, and was killed."""


class JobFailed(HistoQueueError):
    """The job ends as `failed`; nothing else does."""

    code = "JOB_FAILED"


class InputMissing(JobFailed):
    """The stored image is gone, or its bytes are no longer those that were accepted."""

    code = "INPUT_MISSING"


class ModelError(JobFailed):
    """The model gave no finite answer for this image."""

    code = "MODEL_ERROR"


class PoisonJob(JobFailed):
    """The image crashed or hung the engine each time it was run alone."""

    code = "POISON"


class OperatorError(HistoQueueError):
    """Somebody who runs this installation must act."""


class InvalidModel(OperatorError):
    """A model version that is incomplete, altered, or does not reproduce its golden tiles."""

    code = "INVALID_MODEL"
