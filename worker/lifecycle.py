"""A worker's life: load and prove the model, consume, report, drain, end."""

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog

from shared.errors import HistoQueueError, cause_of
from shared.schemas import WorkerStatus, wall_clock_ms
from shared.services import Services
from shared.settings import Settings
from shared.sweep import sweep_when_due
from shared.worker_registry import REPORT_EVERY_SECONDS
from worker.batcher import Batcher
from worker.breaker import CrashBreaker
from worker.cores import usable_cores
from worker.leases import LeaseKeeper
from worker.reaper import (
    ARCHIVE_EVERY_SECONDS,
    ARCHIVE_THREADS,
    CLEAN_EVERY_SECONDS,
    CLEAN_THREADS,
    REAP_EVERY_SECONDS,
    SWEEP_LOOK_SECONDS,
    archive_once,
    clean_once,
    reap_once,
)
from worker.routine import Routine
from worker.supervisor import ENGINE_COMMAND, START_TIMEOUT_SECONDS, EngineOptions, EngineSupervisor
from worker.tasks import JobRunner, RunLimits

#: The consumer's loop ticks every second; one that has not for this long has lost its broker.
TICK_LASTS_SECONDS = 5.0
#: One that has not ticked for this long, although Redis answers, is not coming back. Celery looks every half
#: minute for a broker that was away.
STANDSTILL_SECONDS = 60.0
#: Between two tries to get a model that proves itself.
MODEL_RETRY_SECONDS = 2.0
_log = structlog.get_logger(__name__)


def jobs_at_once(settings: Settings) -> int:
    """Return how many jobs a worker holds: the next micro-batch is ready while one runs."""
    return 2 * settings.max_batch_size


class Worker:
    """Everything in this process beside Celery, in the order in which it starts and ends."""

    def __init__(
        self,
        settings: Settings,
        services: Services,
        engine_command: Sequence[str] = ENGINE_COMMAND,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """`end_process` ends a process that is beyond repair, so that its supervisor starts another."""
        self._end_process = end_process
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._services = services
        self.supervisor = _supervisor(settings, services, engine_command)
        self.batcher = Batcher(self.supervisor, settings.max_batch_size)
        # More than a start or a micro-batch, the steps of a turn, may take; a turn of several takes longer.
        self._longest_step_seconds = settings.engine_timeout_seconds + START_TIMEOUT_SECONDS
        # The outcome is then written for as long as a lease lasts.
        self._longest_stop_seconds = self._longest_step_seconds + settings.lease_seconds
        self.leases = LeaseKeeper(services.jobs, settings.lease_seconds, self._is_stuck)
        self.breaker = CrashBreaker()
        self._routines = _routines(settings, services)
        self.runner = JobRunner(
            jobs=services.jobs,
            objects=services.objects,
            batcher=self.batcher,
            leases=self.leases,
            breaker=self.breaker,
            limits=RunLimits(settings.lease_seconds, settings.max_run_seconds),
            pool=ThreadPoolExecutor(jobs_at_once(settings), thread_name_prefix="jobs"),
            fetchers=None
            if settings.object_store_dir
            else ThreadPoolExecutor(jobs_at_once(settings), thread_name_prefix="fetcher"),
        )
        self._ticked_at = 0.0
        #: How often in a row Redis answered and the consumer's loop did not tick. Looks are counted, and not
        #: seconds: after a pause of the whole process the loop has had no chance yet.
        self._standing_still = 0
        #: Why there was no engine when it was last looked for.
        self._lacked: str | None = None
        self._stopped = threading.Event()
        self._reporter = threading.Thread(target=self._report, name="reporter", daemon=True)

    def start(self) -> None:
        """Return when an engine has loaded the live model and reproduced its golden tiles, and not before."""
        while not self._has_engine():  # ends by NoGpu, which no waiting mends
            time.sleep(MODEL_RETRY_SECONDS)
        self.batcher.start()
        self.leases.start()
        for routine in self._routines:
            routine.start()
        self._reporter.start()

    def tick(self) -> None:
        """Note that the consumer's loop is alive."""
        self._ticked_at = time.monotonic()

    def drain(self) -> None:
        """Finish what runs and hand back the rest; safe in a signal handler."""
        self._stopped.set()
        self.batcher.drain()

    @property
    def is_draining(self) -> bool:
        """No new job is begun any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End the jobs that are under way, then the threads and the engine."""
        self.drain()
        has_ended = self.runner.stop(self._longest_stop_seconds)
        self.batcher.join(5)
        for routine in self._routines:
            routine.stop()
        self.leases.stop()
        self.supervisor.stop()
        self._withdraw()
        if not has_ended:
            # A thread that waits for ever would keep the process; its job is safe by its lease.
            _log.critical("worker_ends_itself", reason="a job did not end")
            self._end_process(1)

    def _has_engine(self) -> bool:
        try:
            self.supervisor.ensure(self._services.models.live())
        except HistoQueueError as error:
            self._say_once(error, code=error.code, cause=cause_of(error))
            self._complain(str(error))
            return False
        except OSError as error:
            # A full disk, or a cache that may not be written.
            self._say_once(error)
            # Its whole text names a path of this machine, which is for the log.
            self._complain(error.strerror or type(error).__name__)
            return False
        return True

    def _complain(self, trouble: str) -> None:
        with suppress(HistoQueueError):
            self._services.workers.complain(trouble)

    def _say_once(self, error: Exception, **facts: str | None) -> None:
        reason = f"{error} {facts}"
        if reason != self._lacked:
            _log.error("no_model_yet", error=str(error), **facts)
        self._lacked = reason

    def _is_stuck(self) -> bool:
        return self.batcher.is_stuck(self._longest_step_seconds) or not self.leases.is_alive

    @property
    def _has_ticked(self) -> bool:
        return time.monotonic() - self._ticked_at < TICK_LASTS_SECONDS

    def _stands_still(self) -> bool:
        """Tell whether the consumer's loop has ended or hangs; to be asked at each report."""
        try:
            if self._has_ticked:
                self._standing_still = 0
            else:
                self._services.jobs.ping()
                self._standing_still += 1
        except HistoQueueError:
            # It waits for Redis, as this does.
            self._standing_still = 0
        return self._standing_still * REPORT_EVERY_SECONDS >= STANDSTILL_SECONDS

    @property
    def _is_consuming(self) -> bool:
        return self._has_ticked and self.supervisor.model is not None and not self.breaker.is_open

    def _report(self) -> None:
        while not self._stopped.wait(REPORT_EVERY_SECONDS):
            if self._is_stuck():
                # Its jobs are safe: their leases were not renewed, and the next process takes over.
                _log.critical("worker_ends_itself", reason="the batcher is stuck, or a thread has died")
                self._end_process(1)
                return
            try:
                if self._stands_still():
                    _log.critical("worker_ends_itself", reason="the consumer stands still")
                    self._end_process(1)
                    return
                model = self.supervisor.model
                if self._is_consuming and model is not None:
                    self._services.workers.report(
                        WorkerStatus(
                            name=self.name,
                            model_name=model.name,
                            model_version=model.version,
                            reported_at_ms=wall_clock_ms(),
                            refused={
                                refused.version: why
                                for refused, why in self.supervisor.refused.items()
                                if refused.name == model.name
                            },
                        )
                    )
            except HistoQueueError as error:
                _log.warning("worker_not_reported", error=str(error), cause=cause_of(error))
            except Exception:  # noqa: BLE001 - logged whole; this thread also sees whether the worker is stuck
                _log.exception("worker_not_reported")

    def _withdraw(self) -> None:
        try:
            self._services.workers.withdraw(self.name)
        except HistoQueueError as error:
            # The report runs out by itself.
            _log.info("worker_not_withdrawn", error=str(error))


def _supervisor(settings: Settings, services: Services, command: Sequence[str]) -> EngineSupervisor:
    cache = Path(settings.model_cache_dir)
    return EngineSupervisor(
        fetch_model=lambda model: services.models.fetch(model, cache),
        options=EngineOptions(
            threads=settings.engine_threads or usable_cores(),
            max_batch_size=settings.max_batch_size,
            max_pixels=settings.max_image_pixels,
            memory_bytes=settings.engine_memory_bytes,
            runtime=settings.inference_runtime,
            needs_gpu=settings.require_gpu,
            decode_threads=settings.engine_decode_threads or usable_cores(),
        ),
        timeout_seconds=settings.engine_timeout_seconds,
        command=command,
    )


def _routines(settings: Settings, services: Services) -> tuple[Routine, ...]:
    jobs, objects = services.jobs, services.objects
    archivers = ThreadPoolExecutor(ARCHIVE_THREADS, thread_name_prefix="archiver")
    cleaners = ThreadPoolExecutor(CLEAN_THREADS, thread_name_prefix="cleaner")
    return (
        Routine("reaper", REAP_EVERY_SECONDS, lambda: reap_once(jobs, services.queue)),
        Routine("cleaner", CLEAN_EVERY_SECONDS, lambda: clean_once(jobs, objects, cleaners)),
        Routine("archiver", ARCHIVE_EVERY_SECONDS, lambda: archive_once(jobs, objects, archivers)),
        Routine("sweeper", SWEEP_LOOK_SECONDS, lambda: sweep_when_due(services, settings)),
    )
