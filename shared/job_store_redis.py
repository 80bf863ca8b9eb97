"""The job ledger on Redis: one Lua call a transition, on Redis' own clock."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared import keys
from shared.errors import (
    IdempotencyKeyReused,
    JobAlreadyFinal,
    JobNotFound,
    JobNotRetryable,
    JobStoreUnavailable,
    LedgerRebuilding,
    QueueFull,
    QuotaReached,
    ResultExpired,
)
from shared.job_store import (
    DRAIN_WINDOW_SECONDS,
    MOST_LOST_WORKERS,
    REPUBLISH_AFTER_MS,
    SWEEP_EVERY_SECONDS,
    Canceled,
    Cleanable,
    Created,
    Published,
    not_retryable,
)
from shared.redis_address import RedisAddress
from shared.schemas import Depth, Idempotency, Job, JobError, JobSpec, JobStatus, NewJob, Totals

#: A create that reaches Redis this late after it was sent is refused: its caller was told "try again".
CREATE_PATIENCE_MS = 3_000
#: Whoever was given ended jobs to archive has so long before somebody else is.
_ARCHIVING_MS = 30_000
#: How long a reading of Redis' memory holds.
_MEMORY_READING_SECONDS = 1.0
_INDEXES = [keys.OPEN, keys.PUBLISHED, keys.LEASED, keys.DRAINED, keys.ENDED, keys.UNARCHIVED, keys.FOUNDED,
            keys.COUNTED]  # fmt: skip
_ACCEPTING = ("create", "retry")
_SETTLING = ("get", "claim", "renew", "finish", "release", "strike", "cancel", "delete", "reap",
             "cleanable", "clean", "unarchived", "archived", "swept")  # fmt: skip
#: What ends work that was accepted may use the last of Redis' memory; what accepts more may not.
_USES_ALL_MEMORY = "#!lua flags=allow-oom\n"


def connect(url: str, timeout_seconds: float, ca_file: str | None = None) -> redis.Redis:
    """Return a client that gives up after `timeout_seconds`, also on a server that never answers."""
    return RedisAddress.parse(url).client(
        ca_file,
        decode_responses=True,
        socket_connect_timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_keepalive=True,
        health_check_interval=10,
        # A second try covers a connection that a restart of Redis left dead. Every transition is safe twice:
        # the first try may have been carried out, and its answer lost.
        retry=Retry(NoBackoff(), 1),
    )


class RedisJobStore:
    """See `shared.job_store.JobStore` for what each method promises."""

    def __init__(self, client: redis.Redis, clock_ms: Callable[[], int] | None = None) -> None:
        """`clock_ms` stands for Redis' clock in every script: tests make time pass with it."""
        self._redis = client
        self._clock = clock_ms
        #: Redis' clock minus this process' monotonic one; None until Redis has answered once.
        self._clock_lead_ms: float | None = None
        self._memory_reading: tuple[float, float] | None = None
        common = _read("common")
        self._scripts = {name: client.register_script(common + _read(name)) for name in _ACCEPTING} | {
            name: client.register_script(_USES_ALL_MEMORY + common + _read(name)) for name in _SETTLING
        }

    def create(
        self, new: NewJob, max_open: int, accepted_at_ms: int | None = None, max_owned: int = 0
    ) -> Created:
        outcome, payload = self._try_create(new, max_open, accepted_at_ms, max_owned)
        if outcome == "late":
            # Redis' clock was set, or another server took over: its time is known again now.
            outcome, payload = self._try_create(new, max_open, accepted_at_ms, max_owned)
        if outcome == "rebuilding":
            raise LedgerRebuilding
        if outcome == "late":
            raise JobStoreUnavailable(
                "Redis answered too late. Nothing was accepted; send the request again."
            )
        if outcome == "full":
            raise QueueFull(int(payload), max_open)
        if outcome == "quota":
            raise QuotaReached(int(payload), max_owned)
        if outcome == "conflict":
            raise _key_reused()
        if outcome == "replayed":
            # Read as any job is: it may be past its deadline by now.
            _, _, payload = self._call("get", payload)
        return Created(_to_job(payload), replayed=outcome == "replayed")

    def _try_create(
        self, new: NewJob, max_open: int, accepted_at_ms: int | None, max_owned: int
    ) -> tuple[str, Any]:
        repeat = new.idempotency
        arguments: list[str | float] = [
            int(self._redis_now_ms()) + CREATE_PATIENCE_MS,
            max_open,
            new.spec.model_dump_json(),
            _ms(new.expires_in_seconds),
            _ms(new.retention_seconds),
            _ms(new.tombstone_seconds),
            _ms(new.image_retention_seconds),
            repeat.fingerprint if repeat else "",
            keys.JOB,
            accepted_at_ms or 0,
            new.spec.owner or "",
            max_owned,
        ]
        extra = [keys.IDEMPOTENCY + repeat.key] if repeat else []
        outcome, now, *payload = self._call("create", new.id, *arguments, extra_keys=extra)
        self._clock_lead_ms = int(now) - _monotonic_ms()
        return outcome, payload[0] if payload else None

    def _redis_now_ms(self) -> float:
        """Return Redis' time, extrapolated from the last answer that carried it."""
        if self._clock:
            return self._clock()
        if self._clock_lead_ms is None:
            with _answering():
                seconds, micros = self._redis.time()
            self._clock_lead_ms = seconds * 1000 + micros / 1000 - _monotonic_ms()
        return _monotonic_ms() + self._clock_lead_ms

    def find_replay(self, idempotency: Idempotency) -> Job | None:
        with _answering():
            pipe = self._redis.pipeline(transaction=False)
            pipe.get(keys.IDEMPOTENCY + idempotency.key)
            pipe.exists(keys.FOUNDED)
            known, is_founded = pipe.execute()
        if known is None:
            if not is_founded:
                raise LedgerRebuilding
            return None
        fingerprint, _, job_id = str(known).partition(" ")
        _, _, record = self._call("get", job_id)
        if not record:
            return None
        if fingerprint != idempotency.fingerprint:
            raise _key_reused()
        return _to_job(record)

    def get(self, job_id: str) -> Job:
        outcome, now, record = self._call("get", job_id)
        _check_known(outcome, job_id)
        job = _to_job(record)
        if job.expires_at_ms is not None and int(now) > job.expires_at_ms:
            raise ResultExpired(
                "The result is past its retention and was dropped. Submit the image again.", job.spec.owner
            )
        return job

    def claim(self, job_id: str, token: str, lease_seconds: float, max_run_seconds: float) -> Job | None:
        outcome, *record = self._call(
            "claim", job_id, token, _ms(lease_seconds), _ms(max_run_seconds), MOST_LOST_WORKERS
        )
        return _to_job(record[0]) if outcome == "claimed" else None

    def renew(self, job_id: str, token: str, lease_seconds: float) -> bool:
        return bool(self._call("renew", job_id, token, _ms(lease_seconds)))

    def succeed(self, job_id: str, token: str, result: dict[str, Any], timings_ms: dict[str, float]) -> bool:
        return self._finish(job_id, token, JobStatus.SUCCEEDED, "result", json.dumps(result), timings_ms)

    def fail(self, job_id: str, token: str, error: JobError, timings_ms: dict[str, float]) -> bool:
        return self._finish(job_id, token, JobStatus.FAILED, "error", error.model_dump_json(), timings_ms)

    def _finish(
        self, job_id: str, token: str, status: JobStatus, name: str, value: str, timings_ms: dict[str, float]
    ) -> bool:
        return bool(self._call("finish", job_id, token, status, name, value, json.dumps(timings_ms)))

    def release(self, job_id: str, token: str, hold_seconds: float) -> bool:
        return bool(self._call("release", job_id, token, _ms(hold_seconds)))

    def strike(self, job_id: str, token: str, strikes: int) -> bool:
        return bool(self._call("strike", job_id, token, strikes))

    def cancel(self, job_id: str) -> Canceled:
        outcome, _, *record = self._call("cancel", job_id)
        _check_known(outcome, job_id)
        job = _to_job(record[0])
        if outcome == "final":
            raise JobAlreadyFinal(f"Expected a queued or running job. This one has ended as {job.status}.")
        return Canceled(job, was_running=outcome == JobStatus.RUNNING)

    def delete(self, job_id: str) -> str:
        spec = self._forgotten_spec(job_id)
        (outcome,) = self._call("delete", job_id, spec)
        _check_known(outcome, job_id)
        return JobSpec.model_validate_json(spec).input.key

    def retry(self, job_id: str, max_open: int, max_owned: int = 0) -> Job:
        outcome, _, *payload = self._call("retry", job_id, max_open, max_owned)
        _check_known(outcome, job_id)
        if outcome == "refused":
            raise JobNotRetryable(not_retryable(JobStatus(payload[0])))
        if outcome == "gone":
            raise ResultExpired("The image is past its retention and was dropped. Submit it again.")
        if outcome == "full":
            raise QueueFull(int(payload[0]), max_open)
        if outcome == "quota":
            raise QuotaReached(int(payload[0]), max_owned)
        return _to_job(payload[0])

    def _forgotten_spec(self, job_id: str) -> str:
        with _answering():
            text = self._redis.hget(keys.JOB + job_id, "spec")
        return JobSpec.model_validate_json(text).forgotten().model_dump_json() if text else "{}"

    def due(self, oldest_message_ms: int | None, limit: int) -> list[str]:
        with _answering():
            seconds, micros = self._redis.time()
            now = self._clock() if self._clock else seconds * 1000 + micros // 1000
            pipe = self._redis.pipeline(transaction=False)
            for index, until in (
                (keys.LEASED, now),
                (keys.PUBLISHED, _watermark(oldest_message_ms, now)),
                (keys.OPEN, now),
            ):
                pipe.zrange(index, "-inf", f"({until}", byscore=True, offset=0, num=limit)
            found: list[list[str]] = pipe.execute()
        return list(dict.fromkeys(job_id for ids in found for job_id in ids))

    def reap(self, job_ids: Sequence[str], oldest_message_ms: int | None) -> list[Published]:
        publish = []
        for job_id in job_ids:
            watermark = _watermark(oldest_message_ms, int(self._redis_now_ms()))
            outcome, now = self._call("reap", job_id, watermark, MOST_LOST_WORKERS)
            if outcome == "publish":
                publish.append(Published(job_id, int(now)))
        return publish

    def cleanable(self, limit: int) -> list[Cleanable]:
        return [
            Cleanable(
                job_id,
                None if image_gone or not spec else JobSpec.model_validate_json(spec).input.key,
                deleted=bool(deleted),
            )
            for job_id, spec, image_gone, deleted in self._call("cleanable", "", limit, keys.JOB)
        ]

    def cleaned(self, item: Cleanable) -> None:
        self._call("clean", item.job_id, "" if item.image_key else self._forgotten_spec(item.job_id))

    def unarchived(self, limit: int) -> list[Job]:
        records = self._call("unarchived", "", limit, _ARCHIVING_MS, keys.JOB)
        # A record may be past its tombstone by now.
        return [_to_job(record) for record in records if record]

    def archived(self, job_ids: Sequence[str]) -> list[str]:
        return list(self._call("archived", "", keys.JOB, *job_ids)) if job_ids else []

    def unknown(self, job_ids: Sequence[str]) -> list[str]:
        with _answering():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.exists(keys.JOB + job_id)
            known = pipe.execute()
        return [job_id for job_id, is_known in zip(job_ids, known, strict=True) if not is_known]

    def is_founded(self) -> bool:
        with _answering():
            return bool(self._redis.exists(keys.FOUNDED))

    def found(self) -> None:
        with _answering():
            self._redis.set(keys.FOUNDED, int(self._redis_now_ms()))

    def sweep_is_due(self) -> bool:
        with _answering():
            return not self._redis.exists(keys.SWEPT)

    def begin_sweep(self, seconds: float) -> bool:
        with _answering():
            return bool(self._redis.set(keys.SWEEPING, 1, nx=True, px=_ms(seconds)))

    def hold_sweep(self, seconds: float) -> bool:
        with _answering():
            return bool(self._redis.pexpire(keys.SWEEPING, _ms(seconds)))

    def end_sweep(self, is_whole: bool) -> bool:
        extra = [keys.SWEEPING, keys.SWEPT]
        return bool(self._call("swept", "", int(is_whole), _ms(SWEEP_EVERY_SECONDS), extra_keys=extra))

    def totals(self) -> Totals:
        with _answering():
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
            with _answering():
                memory: dict[str, Any] = self._redis.info("memory")
            most = int(memory.get("maxmemory", 0))
            self._memory_reading = (now, int(memory["used_memory"]) / most if most else 0.0)
        return self._memory_reading[1]

    def depth(self, owner: str | None = None) -> Depth:
        with _answering():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zcard(keys.OPEN)
            pipe.zcard(keys.LEASED)
            pipe.zrange(keys.PUBLISHED, 0, 0, withscores=True)
            pipe.exists(keys.FOUNDED)
            pipe.scard(f"{keys.OPEN}:{owner or ''}")
            open_, leased, oldest, is_founded, owned = pipe.execute()
        return Depth(
            open=open_,
            running=leased,
            oldest_published_at_ms=int(oldest[0][1]) if oldest else None,
            owned=owned,
            is_founded=bool(is_founded),
        )

    def position(self, job_id: str) -> int | None:
        with _answering():
            rank = self._redis.zrank(keys.PUBLISHED, job_id)
        return None if rank is None else int(cast(int, rank))  # a list only with scores

    def drain_rate(self) -> float:
        with _answering():
            buckets: dict[str, str] = self._redis.hgetall(keys.DRAINED)  # type: ignore[assignment]
        first = (self._redis_now_ms() - DRAIN_WINDOW_SECONDS * 1000) / 10_000
        return sum(int(n) for bucket, n in buckets.items() if int(bucket) > first) / DRAIN_WINDOW_SECONDS

    def changes(self) -> Iterator[str | None]:
        with _answering(), self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(keys.CHANGES)
            while True:
                message = pubsub.get_message(timeout=1.0)
                yield str(message["data"]) if message else None

    def ping(self) -> None:
        with _answering():
            self._redis.ping()

    def _call(self, name: str, job_id: str, *arguments: str | float, extra_keys: Sequence[str] = ()) -> Any:
        with _answering():
            return self._scripts[name](
                keys=[keys.JOB + job_id, *_INDEXES, *extra_keys],
                args=[self._clock() if self._clock else "", keys.CHANGES, job_id, *arguments],
            )


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        # The text of a connection error names the server's address: for the log, not for a client.
        raise JobStoreUnavailable("The job store does not answer. Ask again later.") from error


def _read(name: str) -> str:
    return (resources.files("shared") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _monotonic_ms() -> float:
    return time.monotonic_ns() / 1_000_000


def _watermark(oldest_message_ms: int | None, now_ms: int) -> int:
    """Return the time before which every published message has left the queue."""
    return min(now_ms, oldest_message_ms if oldest_message_ms is not None else now_ms) - REPUBLISH_AFTER_MS


def _check_known(outcome: str, job_id: str) -> None:
    if outcome == "rebuilding":
        raise LedgerRebuilding
    if outcome == "unknown":
        raise JobNotFound(f"No job has the id {job_id}. Expected an id that POST /predict returned.")


def _key_reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused(
        "This Idempotency-Key was used with another image or other options. "
        "Send a new key with a new request."
    )


_NUMBERS = ("version", "created_at_ms", "deadline_ms", "published_at_ms", "started_at_ms", "finished_at_ms",
            "expires_at_ms", "attempt", "lost", "strikes")  # fmt: skip


def _to_job(flat: Sequence[str] | dict[str, str]) -> Job:
    """Read a record, as HGETALL returns it: a list of names and values."""
    fields = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
    return Job(
        id=fields["id"],
        spec=JobSpec.model_validate_json(fields["spec"]),
        status=JobStatus(fields["status"]),
        result=json.loads(fields["result"]) if "result" in fields else None,
        error=JobError.model_validate_json(fields["error"]) if "error" in fields else None,
        timings_ms=json.loads(fields["timings_ms"]) if "timings_ms" in fields else None,
        **{name: int(fields[name]) for name in _NUMBERS if name in fields},
    )
