"""A Celery process of ours: threads that take messages, and nothing of Celery's own that is not needed."""

from typing import Any

from celery import Celery, signals


def _keep_what_is_under_way(sender: Any, **_: Any) -> None:
    # A lost connection ends no thread: each goes on to its outcome. kombu would publish their messages again,
    # one after the other, and call those lost that it cannot.
    sender.task_consumer.channel.do_restore = False


def consume(app: Celery, hostname: str, threads: int, log_level: str, tells_events: bool = False) -> None:
    """Consume until SIGTERM; `tells_events` has the process say that it is there, as Flower wants."""
    # Sent after each reconnection, whose channel is a new one.
    signals.worker_ready.connect(_keep_what_is_under_way, weak=False)
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
