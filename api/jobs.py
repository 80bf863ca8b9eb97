"""Routes of one job: submit, result, events, cancel, retry, delete."""

from contextlib import suppress

import structlog
from flask import Blueprint, Response, jsonify, request, stream_with_context, url_for
from werkzeug.http import http_date
from werkzeug.routing import BaseConverter

from api.access import caller, owner
from api.body import upload_request
from api.context import context
from api.gunicorn_worker import LONGEST_REQUEST_SECONDS
from api.images import is_whole_png
from api.lookup import check_owner, checked_id, find_job
from api.options import Options, check_webhook, read_options
from api.preferences import Wait, preferred_wait, wanted_wait
from api.removal import cancel_job, delete_job
from api.repeats import idempotency
from api.representation import job_json
from api.request_log import request_id, seconds_taken
from api.retry import retry_job
from api.room import retry_after
from api.streams import EVENT_STREAM, event_stream
from api.submission import submit
from api.uploads import received_image
from shared.archive import Archive
from shared.errors import JobChanged, NoHeatmap, ResultExpired
from shared.queue_order import place_of
from shared.representation import NOTICE, may_have_heatmap
from shared.schemas import Job

bp = Blueprint("jobs", __name__)
_log = structlog.stdlib.get_logger("api.jobs")

#: So long after it began, with a slow upload, a submission waits no more: it is ended soon after that.
LATEST_ANSWER_SECONDS = LONGEST_REQUEST_SECONDS - 5.0


class AnyText(BaseConverter):
    """Whatever stands in a path, slashes and line ends too: it is then answered as an id never issued."""

    regex = "(?s:.+)"
    part_isolating = False


class AnyId(AnyText):
    """The same, but for what is a route below a job: that has methods of its own."""

    regex = r"(?s:(?!.*/(?:cancel|retry|events|heatmap\.png|deliveries|redeliver)\Z).+)"


@bp.post("/predict")
def predict() -> Response:
    """Accept one image: 202 with its job, or 200 where the caller waited and it is final by then."""
    here = context()
    wait = preferred_wait(request)
    # The upload's file is closed before the answer is held back.
    with received_image(upload_request(), here.settings) as upload:
        options = read_options(request.args, request.form, Options)
        check_webhook(options.webhook_url, here.settings)
        repeat = idempotency(request.headers.get("Idempotency-Key"), request.path, upload, options, owner())
        submitted = submit(here.services, here.settings, upload, options, repeat, request_id(), owner())
    seconds = min(wait.seconds, LATEST_ANSWER_SECONDS - seconds_taken())
    job = here.waiting.until_final(submitted.job, seconds, owner())
    answer = _answer(job, wait)
    answer.headers["Location"] = url_for("jobs.result", job_id=job.id)
    if submitted.replayed:
        answer.headers["Idempotency-Replayed"] = "true"
    return answer


@bp.get("/result/<any_id:job_id>")
def result(job_id: str) -> Response:
    """Return the job: 200 where it is final, else 202; held back where the caller asks for it."""
    here = context()
    wait = wanted_wait(request)
    job = find_job(here.services, checked_id(job_id), caller())
    job = here.waiting.until_final(job, wait.seconds, owner())
    return _unchanged(job) or _answer(job, wait)


@bp.post("/result/<any_text:job_id>/cancel")
def cancel(job_id: str) -> Response:
    """End the job: 200 where it had not started; 202 where a worker is at it, whose outcome is refused."""
    canceled = cancel_job(context().services, _owned(job_id))
    answer = _answer(canceled.job)
    answer.status_code = 202 if canceled.was_running else 200
    return answer


@bp.post("/result/<any_text:job_id>/retry")
def retry(job_id: str) -> Response:
    """Queue a job that has ended without a result once more, under the same id: 202."""
    here = context()
    answer = _answer(retry_job(here.services, here.settings, _owned(job_id)))
    answer.headers["Location"] = url_for("jobs.result", job_id=job_id)
    return answer


@bp.get("/result/<any_text:job_id>/events")
def events(job_id: str) -> Response:
    """Tell every change of the job, as server-sent events; 204 where it is final and that was told before."""
    here = context()
    job = find_job(here.services, checked_id(job_id), caller())
    last = request.headers.get("Last-Event-ID")
    if job.status.is_final and last == str(job.version):
        return _nothing()
    answer = Response(
        stream_with_context(event_stream(here.waiting.follow(job, owner()), last)), content_type=EVENT_STREAM
    )
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-HistoQueue-Notice"] = NOTICE
    # A proxy that gathers the answer before it passes it on would hold the events back.
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


@bp.get("/result/<any_text:job_id>/heatmap.png")
def heatmap(job_id: str) -> Response:
    """Return where the network looked, as a PNG to lay over the image; 202 with the job while it is open."""
    here = context()
    job = find_job(here.services, checked_id(job_id), caller())
    if not job.status.is_final and job.spec.explain:
        return _answer(job)
    # A canceled job may have one: its worker stores it before it hears that nobody wants the outcome.
    png = Archive(here.services.objects).get_heatmap(job_id) if may_have_heatmap(job) else None
    if png is not None and not is_whole_png(png):
        _log.warning("heatmap_not_understood", job_id=job_id)
        png = None
    if png is None:
        raise NoHeatmap(
            "Expected a job that was submitted with explain=true, has a class, and whose image is still kept."
            f" This one is {job.status}, with explain={str(job.spec.explain).lower()}."
        )
    return _unchanged(job) or _with_headers(Response(png, content_type="image/png"), job)


@bp.delete("/result/<any_id:job_id>")
def delete(job_id: str) -> Response:
    """Cancel the job if it is open, and leave nothing of its image or result; 204, also when repeated."""
    here = context()
    delete_job(here.services, here.settings, _owned(job_id))
    return _nothing()


def _owned(job_id: str) -> str:
    """Return the id of a job that the caller may change, as far as If-Match lets them.

    Raises:
        JobChanged: if it is in another version.
    """
    services = context().services
    check_owner(services, checked_id(job_id), caller())
    if request.if_match:
        # What is gone is so in any version, and says it itself.
        with suppress(ResultExpired):
            job = find_job(services, job_id, caller())
            if not request.if_match.contains_weak(_tag(job)):
                raise JobChanged(f"Expected a job in a version of If-Match. It is in {job.version}.")
    return job_id


def _nothing() -> Response:
    answer = Response(status=204)
    # Flask names a type even for what is not there.
    del answer.headers["Content-Type"]
    return answer


def _answer(job: Job, wait: Wait | None = None) -> Response:
    answer = jsonify(job_json(job))
    answer.status_code = 200 if job.status.is_final else 202
    if wait and wait.preferred and job.status.is_final:
        answer.headers["Preference-Applied"] = f"wait={wait.seconds:.0f}"
    return _with_headers(answer, job)


def _unchanged(job: Job) -> Response | None:
    """Return a 304 where the caller has this version of the job."""
    if request.if_none_match.contains_weak(_tag(job)):
        return _with_headers(Response(status=304), job)
    return None


def _with_headers(answer: Response, job: Job) -> Response:
    """Add what a 304 carries too: the tag, how long the answer holds, when to ask again."""
    # Weak: under one version a queued job's place changes.
    answer.set_etag(_tag(job), weak=True)
    answer.headers["X-HistoQueue-Notice"] = NOTICE
    if job.expires_at_ms is not None:
        # Kept by its reader alone, and asked for again: the job may be deleted before it expires.
        answer.headers["Cache-Control"] = "private, no-cache"
        answer.headers["Expires"] = http_date(job.expires_at_ms / 1000)
    else:
        answer.headers["Cache-Control"] = "no-store"
        place = place_of(job)
        answer.headers["Retry-After"] = str(retry_after((place and place.eta_seconds) or 0))
    return answer


def _tag(job: Job) -> str:
    return f"{job.id}-{job.version}"
