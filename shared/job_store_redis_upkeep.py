"""The upkeep of the ledger on Redis: what is to be archived, dropped, compared and counted."""

import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis
import structlog

from shared import keys
from shared.job_store import SWEEP_EVERY_SECONDS, Cleanable
from shared.redis_ledger import (
    UNREADABLE,
    RedisLedger,
    answering,
    milliseconds,
    read_spec,
    spec_text,
    to_job,
)
from shared.schemas import Job, JobSpec, JobStatus, Totals

#: Whoever was given ended jobs to archive or to clean has so long before somebody else is.
_HELD_MS = 30_000
#: How long a reading of Redis' memory holds.
_MEMORY_READING_SECONDS = 1.0
#: How long a reading of its clock holds, for who looks at very many objects by it.
_CLOCK_READING_SECONDS = 5.0
_log = structlog.get_logger(__name__)


class RedisUpkeep(RedisLedger):
    """The part of `shared.job_store.JobStore` that no request waits for, and its counts."""

    def __init__(self, client: redis.Redis, clock_ms: Callable[[], int] | None = None) -> None:
        super().__init__(client, clock_ms)
        self._memory_reading: tuple[float, float] | None = None
        self._clock_asked_at = -math.inf
        #: What stands in Redis while this process has the right to compare; nobody else's is the same.
        self._right = ""

    def _spec(self, job_id: str) -> JobSpec | None:
        with answering():
            fields: dict[str, str] = self._redis.hgetall(keys.JOB + job_id)  # type: ignore[assignment]
        return read_spec(job_id, fields) if fields else None

    def cleanable(self, limit: int) -> list[Cleanable]:
        found = []
        for job_id, spec, image_gone, deleted in self._call("cleanable", "", limit, _HELD_MS, keys.JOB):
            try:
                found.append(_cleanable(job_id, None if image_gone or not spec else spec, bool(deleted)))
            except UNREADABLE:
                _log.exception("record_not_understood", job_id=job_id)
        return found

    def cleaned(self, item: Cleanable) -> None:
        spec = None if item.image_key else self._spec(item.job_id)
        self._call("clean", item.job_id, spec_text(item.job_id, spec.forgotten()) if spec else "")

    def unarchived(self, limit: int) -> list[Job]:
        return list(_readable(self._call("unarchived", "", limit, _HELD_MS, keys.JOB)))

    def archived(self, jobs: Sequence[Job]) -> list[str]:
        named = [part for job in jobs for part in (job.id, job.version)]
        return list(self._call("archived", "", keys.JOB, *named)) if named else []

    def unarchive(self, job_id: str) -> bool:
        return bool(self._call("unarchive", job_id, _HELD_MS))

    def unknown(self, job_ids: Sequence[str]) -> list[str]:
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.exists(keys.JOB + job_id)
            known = pipe.execute()
        return [job_id for job_id, is_known in zip(job_ids, known, strict=True) if not is_known]

    def is_founded(self) -> bool:
        with answering():
            return bool(self._redis.exists(keys.FOUNDED))

    def found(self) -> None:
        with answering():
            self._redis.set(keys.FOUNDED, int(self._redis_now_ms()))

    def sweep_is_due(self) -> bool:
        with answering():
            swept = self._redis.get(keys.SWEPT)
        return swept is None or self._server() not in ("", swept)

    def begin_sweep(self, seconds: float) -> bool:
        right = f"{secrets.token_hex(8)} {self._server()}"
        with answering():
            has_right = bool(self._redis.set(keys.SWEEPING, right, nx=True, px=milliseconds(seconds)))
        if has_right:
            self._right = right
            self._warn_of_settings()
        return has_right

    def _warn_of_settings(self) -> None:
        """Say where the server is not set as it must be; of `appendfsync` it tells nothing."""
        with answering():
            try:
                facts: dict[str, Any] = {**self._redis.info("persistence"), **self._redis.info("memory")}
            except redis.ResponseError:
                facts = {}
        policy = facts.get("maxmemory_policy", "noeviction")
        wrong = [
            text
            for is_wrong, text in (
                (not facts.get("aof_enabled", 1), "appendonly is off"),
                (policy != "noeviction", f"maxmemory-policy is {policy}"),
                (not facts.get("maxmemory", 1), "maxmemory is not set"),
            )
            if is_wrong
        ]
        if wrong:
            _log.warning("redis_may_lose_jobs", reason=", ".join(wrong))

    def _server(self) -> str:
        """Return what names this run of this server; empty where it does not tell.

        One that was started again, or took over, may lack the last writes, and nothing else shows it.
        """
        with answering():
            try:
                facts: dict[str, Any] = self._redis.info("server")
            except redis.ResponseError:
                facts = {}
        return str(facts.get("run_id", ""))

    def hold_sweep(self, seconds: float) -> bool:
        with answering():
            # Where data was lost, somebody else may have begun anew by now.
            is_ours = self._redis.get(keys.SWEEPING) == self._right
            return is_ours and bool(self._redis.pexpire(keys.SWEEPING, milliseconds(seconds)))

    def end_sweep(self, is_whole: bool) -> bool:
        extra = [keys.SWEEPING, keys.SWEPT]
        said = (int(is_whole), milliseconds(SWEEP_EVERY_SECONDS), self._right)
        return bool(self._call("swept", "", *said, extra_keys=extra))

    def now_ms(self) -> int:
        now = time.monotonic()
        if now - self._clock_asked_at > _CLOCK_READING_SECONDS:
            self._clock_lead_ms, self._clock_asked_at = None, now
        return int(self._redis_now_ms())

    def totals(self) -> Totals:
        with answering():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hgetall(keys.COUNTED)
            pipe.zcard(keys.OPEN)
            counted, open_ = pipe.execute()
        return Totals(
            accepted=int(counted.get("accepted", 0)),
            retried=int(counted.get("retried", 0)),
            open=open_,
            ended={status: int(counted.get(status, 0)) for status in JobStatus if status.is_final},
        )

    def memory_share(self) -> float:
        now = time.monotonic()
        if self._memory_reading is None or now - self._memory_reading[0] > _MEMORY_READING_SECONDS:
            with answering():
                memory: dict[str, Any] = self._redis.info("memory")
            most = int(memory.get("maxmemory", 0))
            self._memory_reading = (now, int(memory["used_memory"]) / most if most else 0.0)
        return self._memory_reading[1]

    def ping(self) -> None:
        with answering():
            self._redis.ping()


def _readable(records: Sequence[Sequence[str]]) -> Iterator[Job]:
    """Yield the jobs of those records that this version understands."""
    for record in records:
        try:
            job = to_job(record)
        except UNREADABLE:
            _log.exception("record_not_understood", job_id=record[-1])
        else:
            yield job


def _cleanable(job_id: str, spec_text: str | None, deleted: bool) -> Cleanable:
    if spec_text is None:
        return Cleanable(job_id, None, has_heatmap=False, deleted=deleted)
    spec = read_spec(job_id, {"spec": spec_text})
    return Cleanable(job_id, spec.input.key, spec.explain, deleted)
