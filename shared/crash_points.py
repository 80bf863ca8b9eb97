"""Places where a test may have a process end as if it were killed there; in service they do nothing.

Nothing in a server's environment arms them: only a test's own entry point does (`tests/chaos/crashing.py`).
"""

from collections.abc import Callable
from typing import Final

#: Each place, and what has happened when a process passes it; docs/reference/guarantees.md lists them.
CRASH_POINTS: Final = {
    "api.before_put": "the upload is checked; nothing is stored",
    "api.after_put": "the image is stored; its job has no record",
    "api.after_create": "the record is written and its message published; the client has no answer",
    "api.batch_begun": "a batch is begun; it has no member",
    "api.batch_stored": "images of a batch are stored; their jobs have no records",
    "api.batch_recorded": "some members are accepted; the batch may get more",
    "api.batch_whole": "the batch is whole; the client has no answer",
    "worker.received": "the message is taken from the queue; the job is not claimed",
    "worker.claimed": "the job is claimed, its attempt counted; its image is not fetched",
    "worker.fetched": "the image is fetched; the engine has not got it",
    "worker.submitted": "the image waits for the engine, or is in it",
    "engine.mid_batch": "the engine has decoded a micro-batch and not answered",
    "worker.inferred": "the engine has answered; the outcome is not written",
    "worker.finished": "the outcome is written; the message is not acknowledged",
    "worker.struck": "a crash of the engine is booked on the image that was alone in it",
    "reaper.republished": "lost jobs are queued and published again; their reaper has not said so",
    "archiver.put": "how jobs ended is in the object store too; the ledger does not know that",
    "cleaner.deleted": "an image past its retention is deleted; the ledger does not know it",
}

_hook: Callable[[str], None] | None = None


def arm(hook: Callable[[str], None]) -> None:
    """Have `hook` called with the name of each place that this process passes."""
    global _hook  # noqa: PLW0603 - one for the whole process, set before its threads start
    _hook = hook


def crash_point(name: str) -> None:
    """Pass the place `name`, which is one of `CRASH_POINTS`."""
    if _hook is not None:
        _hook(name)
