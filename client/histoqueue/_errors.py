"""Every error of the client, branched by who must act.

HistoQueueError
├── CallerError                  change the request; asking again as it is never helps
│   ├── InvalidRequest
│   ├── AccessDenied             no API key, a wrong one, or one that may not do this
│   │   ├── NotAuthenticated
│   │   └── Forbidden
│   ├── RouteNotFound
│   ├── MethodNotAllowed
│   ├── NotSupported             this server has no such route: it is older, or set up without it
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
├── Unavailable                  time must pass; the same call may succeed later
│   ├── ServerUnreachable        no answer at all
│   ├── JobStoreUnavailable
│   │   └── LedgerRebuilding
│   ├── JobStoreFull
│   ├── ObjectStoreUnavailable
│   ├── QueueUnavailable
│   ├── QueueFull
│   │   └── QuotaReached
│   ├── RateLimited
│   ├── NoModel
│   ├── NotReady
│   └── EngineFailed
├── JobFailed                    this job is over; the server and other jobs are well
│   ├── JobCanceled
│   ├── InputMissing
│   ├── ModelError
│   ├── PoisonJob
│   ├── AttemptsExhausted
│   └── DeadlineExceeded
├── OperatorError                whoever runs the server must act
│   ├── InvalidModel
│   ├── InternalFault
│   └── UnexpectedAnswer         an answer that is not of this API: a proxy, or another service
├── WaitTimedOut                 the job was not final in the time that `wait` was given
└── JournalError                 the local journal of `histoqueue submit` cannot be used as asked

`code` is the server's word for an error (docs/reference/errors.md); classes without one are the client's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ._problem import Problem


class HistoQueueError(Exception):
    """Base of everything that the client raises on purpose, files that cannot be read apart."""

    code: ClassVar[str] = ""
    #: The same call may succeed later, where no problem object says otherwise.
    temporary: ClassVar[bool] = False

    def __init__(
        self, message: str, problem: Problem | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.problem = problem
        #: When the server asked to be asked again.
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_temporary(self) -> bool:
        """Tell whether the same call may succeed later."""
        return self.problem.retryable if self.problem else self.temporary


class CallerError(HistoQueueError):
    """The request must change."""


class InvalidRequest(CallerError):
    """An unknown option, or a value out of range."""

    code = "INVALID_REQUEST"


class AccessDenied(CallerError):
    """The server wants an API key, does not know this one, or does not let it do this."""


class NotAuthenticated(AccessDenied):
    """The server wants an API key that it knows."""

    code = "UNAUTHENTICATED"


class Forbidden(AccessDenied):
    """The API key does not have the scope that this needs."""

    code = "FORBIDDEN"


class RouteNotFound(CallerError):
    """The server has no such route."""

    code = "NOT_FOUND"


class MethodNotAllowed(CallerError):
    """The route has no such method."""

    code = "METHOD_NOT_ALLOWED"


class NotSupported(CallerError):
    """What was asked for is not there on this server."""


class RequestTooLarge(CallerError):
    """More bytes than one upload may have."""

    code = "REQUEST_TOO_LARGE"


class ImageTooLarge(CallerError):
    """More pixels than one image may have."""

    code = "IMAGE_TOO_LARGE"


class UnsupportedImageFormat(CallerError):
    """The content is no JPEG, PNG or TIFF, whatever the file is called."""

    code = "UNSUPPORTED_IMAGE_FORMAT"


class InvalidImage(CallerError):
    """The right type, but it cannot be decoded."""

    code = "INVALID_IMAGE"


class UnknownModelVersion(CallerError):
    """No such version is published."""

    code = "UNKNOWN_MODEL_VERSION"


class IdempotencyKeyReused(CallerError):
    """The key came with another image or other options before."""

    code = "IDEMPOTENCY_KEY_REUSED"


class JobNotFound(CallerError):
    """The id was never issued."""

    code = "JOB_NOT_FOUND"


class NoHeatmap(CallerError):
    """The job has no heat map."""

    code = "NO_HEATMAP"


class JobChanged(CallerError):
    """The job is in another version than `If-Match` names, which this client never sends."""

    code = "JOB_CHANGED"


class JobAlreadyFinal(CallerError):
    """The job had ended before."""

    code = "JOB_ALREADY_FINAL"


class JobNotRetryable(CallerError):
    """Only a job that failed, expired or was canceled can be run once more."""

    code = "JOB_NOT_RETRYABLE"


class WebhooksOff(CallerError):
    """The server sends no webhooks; leave webhook_url out."""

    code = "WEBHOOKS_OFF"


class WebhookRefused(CallerError):
    """The webhook's URL leads to an address that the server sends nothing to."""

    code = "WEBHOOK_REFUSED"


class NoDelivery(CallerError):
    """The job has no delivery yet that could be made once more."""

    code = "NO_DELIVERY"


class ResultExpired(CallerError):
    """The job is known, its result past its retention or deleted."""

    code = "RESULT_EXPIRED"


class BatchNotFound(CallerError):
    """No batch has this id."""

    code = "BATCH_NOT_FOUND"


class BatchTooLarge(CallerError):
    """More bytes or more items than one batch may have."""

    code = "BATCH_TOO_LARGE"


class InvalidItem(CallerError):
    """An item of a batch that is no file which can be taken."""

    code = "INVALID_ITEM"


class NothingValid(CallerError):
    """No item of a batch can become a job."""

    code = "NOTHING_VALID"


class CustomIdRepeated(CallerError):
    """Two items of a batch have the same name."""

    code = "CUSTOM_ID_REPEATED"


class Unavailable(HistoQueueError):
    """Something is away for now."""

    code = "UNAVAILABLE"
    temporary = True


class ServerUnreachable(Unavailable):
    """No connection, or no answer in time."""

    code = ""


class JobStoreUnavailable(Unavailable):
    """The server's job store does not answer."""

    code = "JOB_STORE_UNAVAILABLE"


class LedgerRebuilding(JobStoreUnavailable):
    """The server is restoring its jobs; none is lost."""

    code = "LEDGER_REBUILDING"


class JobStoreFull(Unavailable):
    """The server's job store is short of memory."""

    code = "JOB_STORE_FULL"


class ObjectStoreUnavailable(Unavailable):
    """The server's object store does not answer."""

    code = "OBJECT_STORE_UNAVAILABLE"


class QueueUnavailable(Unavailable):
    """The server's queue does not answer."""

    code = "QUEUE_UNAVAILABLE"


class QueueFull(Unavailable):
    """As many jobs are open as are admitted."""

    code = "QUEUE_FULL"


class QuotaReached(QueueFull):
    """As many jobs of this API key are open as one key may have."""

    code = "QUOTA_REACHED"


class RateLimited(Unavailable):
    """This API key sends more requests than one key may."""

    code = "RATE_LIMITED"


class NoModel(Unavailable):
    """No model is published yet."""

    code = "NO_MODEL"


class NotReady(Unavailable):
    """A job that came now would not be done; `problem.members["reasons"]` says why."""

    code = "NOT_READY"


class EngineFailed(Unavailable):
    """The engine gave no answer."""

    code = "ENGINE_FAILED"


class JobFailed(HistoQueueError):
    """The job ended without a result."""

    code = "JOB_FAILED"


class JobCanceled(JobFailed):
    """Its owner ended it."""

    code = ""


class InputMissing(JobFailed):
    """The stored image is gone or altered; submit it again."""

    code = "INPUT_MISSING"


class ModelError(JobFailed):
    """The model gave no finite answer for this image."""

    code = "MODEL_ERROR"


class PoisonJob(JobFailed):
    """The image crashed the engine each time."""

    code = "POISON"


class AttemptsExhausted(JobFailed):
    """Every worker that ran the job was lost."""

    code = "ATTEMPTS_EXHAUSTED"


class DeadlineExceeded(JobFailed):
    """The job waited longer than it was allowed to."""

    code = "DEADLINE_EXCEEDED"


class OperatorError(HistoQueueError):
    """Whoever runs the server must act."""


class InvalidModel(OperatorError):
    """The published model is not sound."""

    code = "INVALID_MODEL"


class InternalFault(OperatorError):
    """Something went wrong in the server; report it with `problem.request_id`."""

    code = "INTERNAL"


class UnexpectedAnswer(OperatorError):
    """The answer is not one of this API: a proxy's, a login page's, or another service's."""


class WaitTimedOut(HistoQueueError, TimeoutError):
    """The job goes on; wait again, or come back with its id."""

    temporary = True


class JournalError(HistoQueueError):
    """It belongs to another run, or another process has it open."""


#: These are not about one image: they would come for every other one, too.
FOR_EVERY_IMAGE = (
    Unavailable,
    AccessDenied,
    InvalidRequest,
    UnknownModelVersion,
    RouteNotFound,
    MethodNotAllowed,
    WebhooksOff,
    WebhookRefused,
    UnexpectedAnswer,
)


def every_class(base: type[HistoQueueError] = HistoQueueError) -> Iterator[type[HistoQueueError]]:
    """Yield an error class and all below it."""
    yield base
    for child in base.__subclasses__():
        yield from every_class(child)


_BY_CODE = {found.code: found for found in every_class() if found.code}


def error_for(problem: Problem, retry_after_seconds: float | None = None) -> HistoQueueError:
    """Return the error that this problem is; a code of a newer server takes the class of its status."""
    kind = _BY_CODE.get(problem.code) or _by_status(problem.status)
    return kind(str(problem), problem, retry_after_seconds)


def _by_status(status: int) -> type[HistoQueueError]:
    if status in (401, 403):
        return AccessDenied
    if status in (408, 429, 502, 503, 504):
        return Unavailable
    return CallerError if status < 500 else OperatorError
