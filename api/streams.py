"""A job's changes as server-sent events (HTML Living Standard, section 9.2)."""

import json
from collections.abc import Iterator

from api.representation import job_json
from shared.schemas import Job

EVENT_STREAM = "text/event-stream; charset=utf-8"
#: How long a client stays away before it comes again, in milliseconds.
_RECONNECT_MS = 1000


def event_stream(changes: Iterator[Job | None], last_event_id: str | None) -> Iterator[str]:
    """Yield an event for each job of `changes` and a comment for each None.

    What `last_event_id` names has been told before, so it is left out.
    """
    yield f"retry: {_RECONNECT_MS}\n\n"
    for job in changes:
        if job is None:
            yield ": nothing new\n\n"
        elif str(job.version) != last_event_id:
            yield f"id: {job.version}\ndata: {json.dumps(job_json(job))}\n\n"
