"""Routes: does the process answer, and could a job be done now."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import structlog
from flask import Blueprint, Response, jsonify

from api.context import Context, context
from api.problems import problem_answer
from shared.errors import HistoQueueError, Unavailable, cause_of
from shared.representation import NOTICE

bp = Blueprint("health", __name__)

#: All checks together; a prober waits no longer than five seconds.
CHECKS_SECONDS = 4.5
_RETRY_AFTER_SECONDS = 2
_log = structlog.stdlib.get_logger("api.health")


@bp.get("/healthz")
def live() -> dict[str, Any]:
    """Answer, whatever else is away: a process that does not is to be restarted."""
    return {"status": "ok", "notice": NOTICE}


@bp.get("/readyz")
def ready() -> Response:
    """Answer 200 where a job that came now would be done, else 503 with each reason."""
    here = context()
    running = {name: here.checkers.submit(check, here) for name, check in _CHECKS.items()}
    wait(running.values(), timeout=CHECKS_SECONDS)
    failures = {name: why for name, check in running.items() if (why := _failure(name, check))}
    _tell_operator(here, running, failures)
    checks = {name: "failing" if name in failures else "ok" for name in running}
    if not failures:
        return jsonify({"status": "ready", "checks": checks})
    reasons = [f"{name}: {why}" for name, why in failures.items()]
    return problem_answer(
        "NOT_READY",
        " ".join(reasons),
        retry_after_seconds=_RETRY_AFTER_SECONDS,
        reasons=reasons,
        checks=checks,
    )


def _tell_operator(here: Context, running: dict[str, "Future[None]"], failures: dict[str, str]) -> None:
    """Log what came to fail and what is well again, once each: probes come every few seconds."""
    for name, check in running.items():
        error = check.exception() if name in failures and check.done() and not check.cancelled() else None
        cause = cause_of(error) if isinstance(error, HistoQueueError) else None
        why = failures.get(name) and (cause or failures[name])
        if why != here.failing.get(name):
            here.failing[name] = why
            if why:
                _log.warning("not_ready", check=name, cause=why)
            else:
                _log.info("ready_again", check=name)


def _failure(name: str, check: "Future[None]") -> str | None:
    if not check.done():
        # One that has not begun must not wait behind those that hang.
        check.cancel()
        return f"Expected an answer within {CHECKS_SECONDS} seconds. None came."
    error = check.exception()
    if error is None or isinstance(error, HistoQueueError):
        return str(error) if error else None
    _log.error("readiness_check_broke", check=name, exc_info=error)
    return "The check broke; the log says why."


def _has_worker(here: Context) -> None:
    name = here.settings.model_name
    workers = [worker for worker in here.services.workers.live() if worker.model_name == name]
    if not workers:
        trouble = here.services.workers.trouble()
        raise Unavailable(
            f"Expected a worker that has loaded {name} and consumes. None has reported lately."
            + (f" One that cannot begin says: {trouble}" if trouble else "")
        )
    try:
        version = here.services.models.live().version
    except HistoQueueError:
        return  # the check of the model says so
    if all(version in worker.refused for worker in workers):
        raise Unavailable(
            f"Expected a worker that can run {name} {version}, which new jobs get. "
            f"Each refuses it: {workers[0].refused[version]}"
        )


def _has_model(here: Context) -> None:
    here.services.models.live()


_CHECKS: dict[str, Callable[[Context], None]] = {
    "job_store": lambda here: here.services.jobs.ping(),
    "object_store": lambda here: here.services.objects.ping(),
    "model": _has_model,
    "worker": _has_worker,
}
