"""`python -m worker`: the Celery worker, wired to our own life cycle."""

import argparse
from typing import Any

import structlog
from celery import Celery, Task, signals
from celery.exceptions import Reject

from shared.logs import configure_logs
from shared.object_store import WORKER_PATIENCE
from shared.services import from_settings
from shared.settings import Settings, read_settings
from shared.task_queue import INFER_TASK, STANDING, make_celery
from worker.consumer import consume
from worker.gpu import NoGpu, check_device
from worker.intake import Intake
from worker.lifecycle import Worker, jobs_at_once
from worker.metrics import serve

_log = structlog.get_logger(__name__)


def make_app(settings: Settings, worker: Worker) -> Celery:
    """Return the Celery application with its one task and the hooks of the worker's life."""
    app = make_celery(settings)
    # Whoever looks on with Flower wants events, and those Celery's own way alone tells.
    intake = None if settings.task_events else Intake(worker.runner, lambda: worker.is_draining)

    @app.task(name=INFER_TASK, bind=True, shared=False, Strategy=intake or Task.Strategy)
    def infer(task: "Task[..., None]") -> None:
        if worker.is_draining:
            raise Reject("the worker is shutting down", requeue=True)
        # The task's id is the job's.
        worker.runner.run(str(task.request.id), task.request.get(STANDING))

    def set_up_logs(**_: Any) -> None:
        configure_logs(settings.log_level, settings.log_json)

    def begin(**_: Any) -> None:
        # Celery connects to the broker only after this returns: no message is taken without a proven model.
        start_or_exit(worker)

    def consume(sender: Any, **_: Any) -> None:
        worker.tick()
        # Outlives each reconnection, of which no signal tells.
        sender.timer.call_repeatedly(1.0, worker.tick)

    def drain(**_: Any) -> None:
        worker.drain()

    def end(**_: Any) -> None:
        worker.stop()

    for signal, handler in (
        (signals.setup_logging, set_up_logs),
        (signals.worker_init, begin),
        (signals.worker_ready, consume),
        (signals.worker_shutting_down, drain),
        (signals.worker_shutdown, end),
    ):
        signal.connect(handler, weak=False)
    return app


def start_or_exit(worker: Worker) -> None:
    """Start the worker, or end the process: Celery would log what a signal's handler raises, and consume.

    Raises:
        SystemExit: where the worker could not be started.
    """
    try:
        worker.start()
    except NoGpu as error:
        raise _refusal(error) from error
    except Exception as error:
        _log.exception("worker_cannot_start")
        raise SystemExit(1) from error


def _refusal(error: NoGpu) -> SystemExit:
    # A line and no traceback: nothing here is wrong but the machine.
    _log.critical("worker_cannot_start", reason=str(error))
    return SystemExit(1)


def main() -> None:
    """Run the worker that the environment describes.

    Raises:
        SystemExit: if it is to have a GPU and there is none.
    """
    argparse.ArgumentParser(
        prog="python -m worker", description="Consume jobs until SIGTERM; the environment says from where."
    ).parse_args()
    settings = read_settings(Settings)
    configure_logs(settings.log_level, settings.log_json)
    if settings.require_gpu:
        try:
            check_device()
        except NoGpu as error:
            raise _refusal(error) from error
    serve(settings.worker_metrics_address)
    run(settings, Worker(settings, from_settings(settings, WORKER_PATIENCE)))


def run(settings: Settings, worker: Worker) -> None:
    """Consume until SIGTERM; then finish what runs, hand back the rest, and end."""
    # Celery takes as many messages as it is to have threads. A heartbeat is an event of its own; ours goes to
    # the ledger.
    consume(
        make_app(settings, worker),
        worker.name,
        jobs_at_once(settings),
        settings.log_level,
        tells_events=settings.task_events,
    )
