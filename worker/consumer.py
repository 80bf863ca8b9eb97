"""A Celery process of ours: threads that take messages, and nothing of Celery's own that is not needed."""

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, bootsteps, signals

#: What reading an entry raises that is no message.
_GARBAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_log = structlog.get_logger(__name__)


class OurWays(bootsteps.StartStopStep):
    """What each connection to the broker, whose channel is a new one, is told before its first message."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Celery has just begun to consume over a connection."""
        channel = parent.task_consumer.channel
        # A lost connection ends no thread: each goes on to its outcome. kombu would publish their messages
        # again, one after the other, and call those lost that it cannot.
        channel.do_restore = False
        channel.handlers["BRPOP"] = _passing_over_garbage(channel)


def _passing_over_garbage(channel: Any) -> Callable[..., object]:
    """Return what reads an entry of the queue and drops one that is no message; kombu ends the process."""
    read, qos = channel.handlers["BRPOP"], channel.qos
    append = qos.append
    counted: list[str] = []

    def count(message: object, tag: str) -> None:
        append(message, tag)
        counted.append(tag)

    def read_or_drop(**options: Any) -> object:
        counted.clear()
        try:
            return read(**options)
        except _GARBAGE as error:
            # It has left the queue. If a job stood behind it, the reaper misses its message and publishes it.
            _log.error("message_unreadable", error=f"{type(error).__name__}: {error}")
            for tag in counted:
                # As one that is under way; nobody else will answer for it.
                qos.ack(tag)
            return True

    qos.append = count
    return read_or_drop


def consume(app: Celery, hostname: str, threads: int, log_level: str, tells_events: bool = False) -> None:
    """Consume until SIGTERM; `tells_events` has the process say that it is there, as Flower wants.

    Raises:
        SystemExit: where Celery ended by an error; it keeps its exit status to itself.
    """
    statuses: list[int | None] = []

    def note_status(sender: Any, **_: Any) -> None:
        statuses.append(sender.exitcode)

    app.steps["consumer"].add(OurWays)
    signals.worker_shutdown.connect(note_status)
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=threads",
            f"--concurrency={threads}",
            f"--hostname={hostname}@histoqueue",
            f"--loglevel={log_level}",
            "--without-gossip",
            "--without-mingle",
            *([] if tells_events else ["--without-heartbeat"]),
        ]
    )
    if any(statuses):
        raise SystemExit(1)
