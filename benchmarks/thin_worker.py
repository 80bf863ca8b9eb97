"""Several workers in one process: Celery's consumer and the ledger as they are shipped, a sleep for all else.

python -m benchmarks.thin_worker WORKERS MILLISECONDS_A_TILE
"""

import os
import secrets
import threading
import time
from typing import Any

from celery import Celery, Task, signals

from benchmarks.arguments import read_numbers
from shared.job_store import Ending
from shared.object_store import WORKER_PATIENCE
from shared.schemas import WorkerStatus, wall_clock_ms
from shared.services import Services, from_settings
from shared.settings import Settings
from shared.task_queue import INFER_TASK, make_celery
from shared.worker_registry import REPORT_EVERY_SECONDS
from worker.consumer import consume

#: Threads of each worker: one claims or ends a job while the other's tile is with the engine.
THREADS = 2
RESULT = {"class": "lung_n", "probabilities": {"lung_n": 0.98, "lung_aca": 0.01, "lung_scc": 0.01}}


def make_app(settings: Settings, services: Services, workers: int, milliseconds: float) -> Celery:
    """Return the application; each of its workers has an engine that sleeps, one tile at a time."""
    app = make_celery(settings)
    engines = threading.Semaphore(workers)

    @app.task(name=INFER_TASK, bind=True)
    def infer(task: "Task[..., None]") -> None:
        token = secrets.token_hex(8)
        claimed = services.jobs.claim_all(
            {str(task.request.id): token}, settings.lease_seconds, settings.max_run_seconds
        )
        if not claimed:
            return
        (job,) = claimed.values()
        with engines:
            time.sleep(milliseconds / 1000)
        timings = {"inference": milliseconds}
        services.jobs.end_all([Ending(job.id, token, timings, RESULT, answer_key=job.spec.answer_key)])

    def report(**_: Any) -> None:
        threading.Thread(target=keep_reporting, args=(services, workers), daemon=True).start()

    signals.worker_ready.connect(report, weak=False)
    return app


def keep_reporting(services: Services, workers: int) -> None:
    """Report each worker, as one in a process of its own does."""
    while True:
        for number in range(workers):
            services.workers.report(
                WorkerStatus(
                    name=f"{os.getpid()}-{number}",
                    model_name="lung-cnn",
                    model_version="1.0.0",
                    reported_at_ms=wall_clock_ms(),
                )
            )
        time.sleep(REPORT_EVERY_SECONDS)


def main(workers: int, milliseconds: float) -> None:
    """Consume until the process is ended."""
    settings = Settings()
    services = from_settings(settings, WORKER_PATIENCE)
    app = make_app(settings, services, workers, milliseconds)
    consume(app, f"thin-{os.getpid()}", THREADS * workers, settings.log_level)


if __name__ == "__main__":
    main(*read_numbers("thin_worker", __doc__, workers=1, milliseconds=20.0))
