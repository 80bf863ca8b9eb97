"""Every problem: what a code means as an HTTP status, and as the error of a job (RFC 9457)."""

from dataclasses import dataclass
from typing import Any

from shared.schemas import Job
from shared.settings import Settings

#: Where every code is explained; `type` is a reference into it.
REFERENCE = "/docs/errors"


@dataclass(frozen=True)
class Problem:
    """What is always the same about one code."""

    status: int
    title: str
    #: The same request may succeed later.
    retryable: bool
    #: What the reader should do.
    advice: str


PROBLEMS = {
    # --- the caller must change the request ---
    "INVALID_REQUEST": Problem(400, "The request is malformed", False, "Correct what the detail names."),
    "UNAUTHENTICATED": Problem(
        401,
        "No API key that opens this",
        False,
        "Send a valid key; whoever runs the server makes them.",
    ),
    "FORBIDDEN": Problem(
        403,
        "This is not allowed",
        False,
        "Ask for a key with the scope named; where there are none, ask from this machine, as localhost.",
    ),
    "NOT_FOUND": Problem(404, "There is no such route", False, "Follow the links of an answer."),
    "METHOD_NOT_ALLOWED": Problem(405, "The route has no such method", False, "Use one that Allow lists."),
    "REQUEST_TOO_LARGE": Problem(
        413,
        "More bytes than one upload may have",
        False,
        "Send at most `limit` bytes; crop or compress the tile.",
    ),
    "IMAGE_TOO_LARGE": Problem(
        413, "More pixels than one image may have", False, "Send at most `limit` pixels, width times height."
    ),
    "UNSUPPORTED_IMAGE_FORMAT": Problem(
        415, "Not an image that is accepted", False, "Send a JPEG, PNG or TIFF file; its content decides."
    ),
    "INVALID_IMAGE": Problem(
        422, "The image cannot be decoded", False, "Open the file yourself, and export it again."
    ),
    "UNKNOWN_MODEL_VERSION": Problem(
        422, "There is no such model version", False, "Leave model_version out to use the live one."
    ),
    "IDEMPOTENCY_KEY_REUSED": Problem(
        422, "The idempotency key belongs to another request", False, "Use a new key for a new request."
    ),
    "JOB_NOT_FOUND": Problem(
        404, "There is no such job", False, "Use the id, or better the link, that POST /predict returned."
    ),
    "NO_HEATMAP": Problem(404, "The job has no heat map", False, "Submit the image with `explain=true`."),
    "JOB_CHANGED": Problem(
        412, "The job is in another version", False, "Read it, and send its ETag in If-Match, or no If-Match."
    ),
    "JOB_ALREADY_FINAL": Problem(409, "The job has ended", False, "Read its result; it changes no more."),
    "JOB_NOT_RETRYABLE": Problem(
        409, "The job cannot be run once more", False, "Only failed, expired and canceled jobs can."
    ),
    "WEBHOOKS_OFF": Problem(
        422, "This installation sends no webhooks", False, "Leave webhook_url out, or ask for WEBHOOK_SECRET."
    ),
    "WEBHOOK_REFUSED": Problem(
        422, "Nothing is sent to that address", False, "Name a host that is reached over the Internet."
    ),
    "NO_DELIVERY": Problem(
        409, "There is no delivery yet", False, "Wait for the end of what was submitted with a webhook_url."
    ),
    "RESULT_EXPIRED": Problem(
        410, "The result is past its retention", False, "Submit the image again, with a new Idempotency-Key."
    ),
    "BATCH_NOT_FOUND": Problem(
        404,
        "There is no such batch",
        False,
        "Use the id, or better the link, that POST /batches returned.",
    ),
    "BATCH_TOO_LARGE": Problem(
        413,
        "More than one batch may have",
        False,
        "Send several batches; the detail says how much is too much.",
    ),
    "INVALID_ITEM": Problem(
        422, "The item is no file that can be taken", False, "Rename it, or pack it plainly; see the detail."
    ),
    "NOTHING_VALID": Problem(
        422,
        "No item of the batch can become a job",
        False,
        "Read `problems`: one for each of the first items.",
    ),
    "CUSTOM_ID_REPEATED": Problem(
        422, "Two items have the same name", False, "Give each item a name of its own; nothing was accepted."
    ),
    # --- time must pass ---
    "QUEUE_FULL": Problem(
        429, "As many jobs are open as are admitted", True, "Ask again after Retry-After seconds."
    ),
    "QUOTA_REACHED": Problem(
        429, "As many jobs of this key are open as are admitted", True, "Ask again after Retry-After seconds."
    ),
    "RATE_LIMITED": Problem(
        429, "More requests than one key may send", True, "Ask again after Retry-After seconds."
    ),
    "UNAVAILABLE": Problem(503, "Something is away for now", True, "Ask again after Retry-After seconds."),
    "JOB_STORE_UNAVAILABLE": Problem(
        503, "The job store does not answer", True, "Ask again after Retry-After seconds."
    ),
    "LEDGER_REBUILDING": Problem(
        503,
        "The ledger is being rebuilt",
        True,
        "Ask again after Retry-After seconds; no accepted job is lost.",
    ),
    "JOB_STORE_FULL": Problem(
        503,
        "The job store is short of memory",
        True,
        "Ask again after Retry-After seconds. Operator: raise Redis' maxmemory, or shorten the retention.",
    ),
    "OBJECT_STORE_UNAVAILABLE": Problem(
        503, "The object store does not answer", True, "Ask again after Retry-After seconds."
    ),
    "QUEUE_UNAVAILABLE": Problem(
        503, "The queue does not answer", True, "Ask again after Retry-After seconds."
    ),
    "NO_MODEL": Problem(503, "No model is published yet", True, "Publish a version; then ask again."),
    "ENGINE_FAILED": Problem(503, "The engine gave no answer", True, "Submit the image again."),
    "NOT_READY": Problem(
        503, "Not ready for jobs", True, "See `reasons`; ask again after Retry-After seconds."
    ),
    # --- a job is over; these come as the `error` of a job ---
    "JOB_FAILED": Problem(500, "The job failed", False, "Read the detail."),
    "INPUT_MISSING": Problem(500, "The stored image is gone or altered", True, "Submit the image again."),
    "MODEL_ERROR": Problem(
        500, "The model gave no finite answer", False, "Report the image to whoever runs this installation."
    ),
    "POISON": Problem(
        422,
        "The image crashed the engine each time",
        False,
        "Export the image anew; report it if that fails too.",
    ),
    "ATTEMPTS_EXHAUSTED": Problem(
        503, "Every worker that ran the job was lost", True, "Look at the workers, then submit it again."
    ),
    "DEADLINE_EXCEEDED": Problem(
        503,
        "The job waited longer than it was allowed to",
        True,
        "Submit it again, with a longer expires_in.",
    ),
    # --- the operator must act ---
    "INVALID_MODEL": Problem(
        503, "The published model is not sound", True, "Whoever runs this installation must publish it again."
    ),
    "INTERNAL": Problem(500, "Something went wrong here", True, "Report it with the request_id."),
}


def problem_body(
    code: str,
    detail: str,
    instance: str,
    request_id: str | None,
    root: str,
    status: int | None = None,
    **members: Any,
) -> dict[str, Any]:
    """Return a problem object; `instance` is a path below `root`, and `members` are added at its end."""
    kind = PROBLEMS.get(code, PROBLEMS["INTERNAL"])
    return {
        "type": f"{root}{REFERENCE}#{anchor(code)}",
        "title": kind.title,
        "status": status or kind.status,
        "detail": detail or kind.advice,
        "instance": f"{root}{instance}",
        "code": code,
        "retryable": kind.retryable,
        "request_id": request_id,
        **members,
    }


def problem_limits(settings: Settings) -> dict[str, int]:
    """Return the codes whose problems name a limit, with that limit."""
    return {
        "REQUEST_TOO_LARGE": settings.max_image_bytes,
        "IMAGE_TOO_LARGE": settings.max_image_pixels,
        "RATE_LIMITED": settings.max_requests_per_minute,
    }


def job_problem(job: Job, settings: Settings, root: str) -> dict[str, Any] | None:
    """Return why a job ended without a result, as the same object that an HTTP error carries."""
    if job.error is None:
        return None
    code, limits = job.error.code, problem_limits(settings)
    members = {"limit": limits[code]} if code in limits else {}
    request_id = job.spec.request_id
    return problem_body(code, job.error.detail, f"/result/{job.id}", request_id, root, **members)


def anchor(code: str) -> str:
    """Return a code as the last part of its `type`, such as job-not-found."""
    return code.lower().replace("_", "-")
