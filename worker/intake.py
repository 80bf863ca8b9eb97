"""What our worker does with a message as Celery hands it over."""

from collections.abc import Callable
from typing import Any

import structlog

from shared.task_queue import STANDING
from worker.attempt import Message
from worker.tasks import JobRunner

#: Celery's promise to answer for a message; it takes a logger, and the errors of a lost connection.
Promise = Callable[..., object]
_log = structlog.get_logger(__name__)


class Intake:
    """A task's `Strategy`, as Celery calls it.

    Celery's own makes a request of each message and gives it a thread to itself; this one gives it to the
    runner, which takes those that wait together, and acknowledges it when its job has ended.
    """

    def __init__(self, runner: JobRunner, is_draining: Callable[[], bool]) -> None:
        self._runner = runner
        self._is_draining = is_draining

    def __call__(self, task: object, app: object, consumer: Any) -> Callable[..., None]:  # noqa: ARG002
        """Return what is called with each message."""
        errors = consumer.connection_errors

        def receive(message: Any, body: object, ack: Promise, reject: Promise, callbacks: object) -> None:  # noqa: ARG001
            if self._is_draining():
                reject(_log, errors, requeue=True)
                return
            headers = message.headers
            # The task's id is the job's.
            job_id, standing = str(headers.get("id")), headers.get(STANDING)
            self._runner.take(Message(job_id, standing, lambda: ack(_log, errors)))

        return receive
