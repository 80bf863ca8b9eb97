"""Which workers are consuming now, with which model loaded: what readiness is judged by."""

from typing import Protocol

import redis

from shared import keys
from shared.redis_ledger import answering
from shared.schemas import WorkerStatus

#: A worker that has not reported for this long does not count.
REPORT_LASTS_SECONDS = 10
#: How often a worker reports.
REPORT_EVERY_SECONDS = 2
#: How long it is remembered why a worker could not begin: longer than its next try takes.
COMPLAINT_LASTS_SECONDS = 150


class WorkerRegistry(Protocol):
    """Reports in, live workers out."""

    def report(self, status: WorkerStatus) -> None:
        """Say that this worker consumes; counts for `REPORT_LASTS_SECONDS`."""

    def withdraw(self, name: str) -> None:
        """Say that this worker consumes no more."""

    def live(self) -> list[WorkerStatus]:
        """Return the workers that have reported lately, by name."""

    def complain(self, trouble: str) -> None:
        """Say why a worker cannot begin; counts for `COMPLAINT_LASTS_SECONDS`."""

    def trouble(self) -> str | None:
        """Return what was last complained of lately."""


class RedisWorkerRegistry:
    """Reports as keys that expire by themselves."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def report(self, status: WorkerStatus) -> None:
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            pipe.sadd(keys.WORKERS, status.name)
            # Without what an earlier version does not know, as long as there is no need for it.
            report = status.model_dump_json(exclude_defaults=True)
            pipe.set(keys.WORKER + status.name, report, px=REPORT_LASTS_SECONDS * 1000)
            pipe.execute()

    def withdraw(self, name: str) -> None:
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            pipe.srem(keys.WORKERS, name)
            pipe.delete(keys.WORKER + name)
            pipe.execute()

    def live(self) -> list[WorkerStatus]:
        with answering():
            names = sorted(str(name) for name in self._redis.smembers(keys.WORKERS))
            reports = [self._redis.get(keys.WORKER + name) for name in names]
        for name, report in zip(names, reports, strict=True):
            if report is None:
                self.withdraw(name)
        return [WorkerStatus.model_validate_json(str(report)) for report in reports if report is not None]

    def complain(self, trouble: str) -> None:
        with answering():
            self._redis.set(keys.WORKER_TROUBLE, trouble, px=COMPLAINT_LASTS_SECONDS * 1000)

    def trouble(self) -> str | None:
        with answering():
            found = self._redis.get(keys.WORKER_TROUBLE)
        return None if found is None else str(found)


class MemoryWorkerRegistry:
    """Reports in a dictionary, for tests; they never expire."""

    def __init__(self) -> None:
        self._reports: dict[str, WorkerStatus] = {}
        self._trouble: str | None = None

    def report(self, status: WorkerStatus) -> None:
        self._reports[status.name] = status

    def withdraw(self, name: str) -> None:
        self._reports.pop(name, None)

    def live(self) -> list[WorkerStatus]:
        return [self._reports[name] for name in sorted(self._reports)]

    def complain(self, trouble: str) -> None:
        self._trouble = trouble

    def trouble(self) -> str | None:
        return self._trouble
