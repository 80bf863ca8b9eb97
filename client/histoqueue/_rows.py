"""One row of results for one file, whatever became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._errors import HistoQueueError
from ._journal import Entry
from ._models import JobRecord

#: The codes that the client itself gives, beside those of the server.
UNREADABLE = "UNREADABLE_FILE"
CANCELED = "CANCELED"
_KEPT = ("created_at", "finished_at", "attempt", "cached", "model", "input", "result", "timings_ms")


def entry_of_job(path: str, record: JobRecord) -> Entry:
    """Return the outcome of a job that has ended."""
    raw = record.raw
    row = {"status": record.status, "job_id": record.id, **{name: raw.get(name) for name in _KEPT}}
    if record.status == "succeeded":
        return Entry(path, "", {**row, "error": None})
    error = record.error
    code = error.code if error else CANCELED if record.status == "canceled" else record.status.upper()
    detail = error.detail if error else f"the job was {record.status}"
    return Entry(path, code, {**row, "error": _error(code, detail, error.request_id if error else None)})


def entry_of_refusal(path: str, error: HistoQueueError) -> Entry:
    """Return the outcome of a file for which no job was accepted."""
    code = (error.problem.code if error.problem else "") or error.code or type(error).__name__
    detail = error.problem.detail if error.problem else str(error)
    request_id = error.problem.request_id if error.problem else None
    return Entry(path, code, {"status": "refused", "error": _error(code, detail, request_id)})


def entry_without_heatmap(entry: Entry, error: HistoQueueError) -> Entry:
    """Return the outcome of a job whose heat map could not be had: its answer stays."""
    refusal = entry_of_refusal(entry.path, error)
    return Entry(entry.path, refusal.code, {**entry.row, "error": refusal.row["error"]})


def entry_of_unreadable(path: str, error: OSError | ValueError) -> Entry:
    """Return the outcome of a file that could not be read here."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return Entry(path, UNREADABLE, {"status": "unreadable", "error": _error(UNREADABLE, reason, None)})


def _error(code: str, detail: str, request_id: str | None) -> Mapping[str, Any]:
    return {"code": code, "detail": detail, "request_id": request_id}
