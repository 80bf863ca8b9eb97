"""How attempts end in the ledger, in the metrics and in the log."""

import time
from collections.abc import Sequence

import stamina
import structlog

from shared.crash_points import crash_point
from shared.errors import JobStoreUnavailable
from shared.job_store import Ending, JobStore
from shared.queue_order import eta_seconds
from shared.schemas import Job, JobError, Standing
from worker import metrics
from worker.attempt import Run, about, leave_to_the_reaper
from worker.supervisor import Outcome

_log = structlog.get_logger(__name__)


def write_endings(jobs: JobStore, settled: Sequence[tuple[Run, Outcome | None]], seconds: float) -> None:
    """Write outcomes in one exchange; tries for so many `seconds`, as their leases last: the work is done."""
    left: dict[Run, tuple[Outcome, Ending]] = {}
    for run, outcome in settled:
        if outcome:
            with about(run):
                try:
                    left[run] = outcome, _ending(run, outcome)
                except Exception:  # noqa: BLE001 - logged whole
                    _log.exception("job_left_to_the_reaper")
    if not left:
        return
    try:
        for attempt in stamina.retry_context(
            on=JobStoreUnavailable, timeout=seconds, attempts=20, wait_max=2
        ):
            with attempt:
                _write(jobs, left)
    except JobStoreUnavailable as error:
        for run in left:
            leave_to_the_reaper(run.job.id, error)


def _write(jobs: JobStore, left: dict[Run, tuple[Outcome, Ending]]) -> None:
    """Write what is left, and take out of it what the ledger has answered for.

    Raises:
        JobStoreUnavailable: if something is left, to be written later.
    """
    away: JobStoreUnavailable | None = None
    said = jobs.end_all([ending for _, ending in left.values()])
    for (run, (outcome, _)), answer in zip(list(left.items()), said, strict=True):
        if isinstance(answer, JobStoreUnavailable):
            away = answer
            continue
        del left[run]
        crash_point("worker.finished")
        with about(run):
            if isinstance(answer, Exception):
                _log.error("job_left_to_the_reaper", exc_info=answer)
            else:
                _note(run, outcome, answer)
    if away:
        raise away


def _ending(run: Run, outcome: Outcome) -> Ending:
    job = run.job
    if "error" in outcome:
        return Ending(job.id, run.lease.token, run.timings, error=JobError(**outcome["error"]))
    result, answer_key = outcome["result"], job.spec.answer_key
    return Ending(job.id, run.lease.token, run.timings, result=result, answer_key=answer_key)


def _note(run: Run, outcome: Outcome, is_written: bool) -> None:
    """Count and log how the job ended."""
    kind = "failed" if "error" in outcome else "succeeded"
    metrics.ATTEMPTS.labels(kind if is_written else "dropped").inc()
    for stage, milliseconds in run.timings.items():
        metrics.STAGE_SECONDS.labels(stage).observe(milliseconds / 1000)
    if "error" in outcome:
        _log.info("job_failed", written=is_written, code=outcome["error"]["code"], **run.timings)
    else:
        _log.info("job_succeeded", written=is_written, **run.timings)
    if run.job.attempt == 1:
        ended_at_ms = (run.job.started_at_ms or 0) + 1000 * (time.monotonic() - run.began)
        _note_how_eta_held(run.job, run.message.standing, (ended_at_ms - run.job.published_at_ms) / 1000)


def _note_how_eta_held(job: Job, standing: object, seconds: float) -> None:
    """Compare how long the job took from its publication on with what its client was told then, if it was."""
    if not isinstance(standing, list):
        return
    try:
        eta = eta_seconds(job.spec.priority, Standing.of(standing))
    except (ValueError, ArithmeticError):
        # Not a message of ours.
        return
    if eta is not None:
        metrics.ETA_ERROR_SECONDS.observe(seconds - eta)
