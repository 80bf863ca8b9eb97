"""A Celery process of ours: threads that take messages, and nothing of Celery's own that is not needed."""

from celery import Celery


def consume(app: Celery, hostname: str, threads: int, log_level: str, tells_events: bool = False) -> None:
    """Consume until SIGTERM; `tells_events` has the process say that it is there, as Flower wants."""
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
