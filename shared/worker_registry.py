"""Which workers are consuming now, with which model loaded: what readiness is judged by."""

from typing import Protocol

import redis

from shared import keys
from shared.errors import JobStoreUnavailable
from shared.schemas import WorkerStatus

#: A worker that has not reported for this long does not count.
REPORT_LASTS_SECONDS = 10
#: How often a worker reports.
REPORT_EVERY_SECONDS = 2


class WorkerRegistry(Protocol):
    """Reports in, live workers out."""

    def report(self, status: WorkerStatus) -> None:
        """Say that this worker consumes; counts for `REPORT_LASTS_SECONDS`."""

    def withdraw(self, name: str) -> None:
        """Say that this worker consumes no more."""

    def live(self) -> list[WorkerStatus]:
        """Return the workers that have reported lately, by name."""


class RedisWorkerRegistry:
    """Reports as keys that expire by themselves."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def report(self, status: WorkerStatus) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.sadd(keys.WORKERS, status.name)
        pipe.set(keys.WORKER + status.name, status.model_dump_json(), px=REPORT_LASTS_SECONDS * 1000)
        _run(pipe)

    def withdraw(self, name: str) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.srem(keys.WORKERS, name)
        pipe.delete(keys.WORKER + name)
        _run(pipe)

    def live(self) -> list[WorkerStatus]:
        try:
            names = sorted(str(name) for name in self._redis.smembers(keys.WORKERS))
            reports = [self._redis.get(keys.WORKER + name) for name in names]
        except redis.RedisError as error:
            raise JobStoreUnavailable("The job store does not answer. Ask again later.") from error
        for name, report in zip(names, reports, strict=True):
            if report is None:
                self.withdraw(name)
        return [WorkerStatus.model_validate_json(str(report)) for report in reports if report is not None]


def _run(pipe: redis.client.Pipeline) -> None:
    try:
        pipe.execute()
    except redis.RedisError as error:
        raise JobStoreUnavailable("The job store does not answer. Ask again later.") from error


class MemoryWorkerRegistry:
    """Reports in a dictionary, for tests; they never expire."""

    def __init__(self) -> None:
        self._reports: dict[str, WorkerStatus] = {}

    def report(self, status: WorkerStatus) -> None:
        self._reports[status.name] = status

    def withdraw(self, name: str) -> None:
        self._reports.pop(name, None)

    def live(self) -> list[WorkerStatus]:
        return [self._reports[name] for name in sorted(self._reports)]
