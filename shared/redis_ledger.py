"""How the ledger speaks to Redis: its scripts, its clock, its records."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from shared import keys
from shared.errors import JobStoreUnavailable
from shared.lua_scripts import read, webhook_functions
from shared.schemas import Job, JobError, JobSpec, JobStatus

_INDEXES = [keys.OPEN, keys.PUBLISHED, keys.PUBLISHED_BULK, keys.LEASED, keys.DRAINED, keys.ENDED,
            keys.UNARCHIVED, keys.FOUNDED, keys.COUNTED, keys.OWNED, keys.BATCH]  # fmt: skip
_ACCEPTING = ("create", "retry")
_SETTLING = ("get", "claim", "renew", "finish", "release", "strike", "cancel", "delete", "reap",
             "cleanable", "clean", "unarchived", "archived", "swept")  # fmt: skip
#: What ends work that was accepted may use the last of Redis' memory; what accepts more may not.
USES_ALL_MEMORY = "#!lua flags=allow-oom\n"
#: What a script must know of a spec: fields of their own.
_BESIDES = ("owner", "priority", "batch")
_NUMBERS = ("version", "created_at_ms", "deadline_ms", "published_at_ms", "started_at_ms", "finished_at_ms",
            "expires_at_ms", "attempt", "lost", "strikes")  # fmt: skip


class RedisLedger:
    """Calls one script a transition, on Redis' own clock."""

    def __init__(self, client: redis.Redis, clock_ms: Callable[[], int] | None = None) -> None:
        """`clock_ms` stands for Redis' clock in every script: tests make time pass with it."""
        self._redis = client
        self._clock = clock_ms
        #: Redis' clock minus this process' monotonic one; None until Redis has answered once.
        self._clock_lead_ms: float | None = None
        common = webhook_functions() + read("common")
        self._scripts = {name: client.register_script(common + read(name)) for name in _ACCEPTING} | {
            name: client.register_script(USES_ALL_MEMORY + common + read(name)) for name in _SETTLING
        }

    def _redis_now_ms(self) -> float:
        """Return Redis' time, extrapolated from the last answer that carried it."""
        if self._clock:
            return self._clock()
        if self._clock_lead_ms is None:
            with answering():
                seconds, micros = self._redis.time()
            self._clock_lead_ms = seconds * 1000 + micros / 1000 - monotonic_ms()
        return monotonic_ms() + self._clock_lead_ms

    def _call(self, name: str, job_id: str, *arguments: str | float, extra_keys: Sequence[str] = ()) -> Any:
        with answering():
            return self._scripts[name](
                keys=[keys.JOB + job_id, *_INDEXES, *extra_keys],
                args=[self._clock() if self._clock else "", keys.CHANGES, job_id, *arguments],
            )


@contextmanager
def answering() -> Iterator[None]:
    """Have every error of Redis leave the block as JobStoreUnavailable."""
    try:
        yield
    except redis.RedisError as error:
        # The text of a connection error names the server's address: for the log, not for a client.
        raise JobStoreUnavailable("The job store does not answer. Ask again later.") from error


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds."""
    return int(seconds * 1000)


def monotonic_ms() -> float:
    """Return a time of this process that never goes back."""
    return time.monotonic_ns() / 1_000_000


def spec_text(job_id: str, spec: JobSpec) -> str:
    """Return what the record says of a spec: nothing that is said elsewhere in it, nothing that is usual."""
    folder = spec.input.key.removesuffix(job_id)
    return spec.model_copy(update={"input": spec.input.model_copy(update={"key": folder})}).model_dump_json(
        exclude=set(_BESIDES), exclude_none=True
    )


def read_spec(job_id: str, fields: Mapping[str, str]) -> JobSpec:
    """Return the spec of a record."""
    spec = json.loads(fields["spec"])
    if spec["input"]["key"].endswith("/"):
        spec["input"]["key"] += job_id
    return JobSpec(
        **spec, **{name: fields[name] for name in ("owner", "priority", "batch") if name in fields}
    )


def to_job(flat: Sequence[str]) -> Job:
    """Read a record, as a script returns it: a list of names and values."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return Job(
        id=fields["id"],
        spec=read_spec(fields["id"], fields),
        status=JobStatus(fields["status"]),
        result=json.loads(fields["result"]) if "result" in fields else None,
        error=JobError.model_validate_json(fields["error"]) if "error" in fields else None,
        cached="cached" in fields,
        timings_ms=json.loads(fields["timings_ms"]) if "timings_ms" in fields else None,
        **{name: int(fields[name]) for name in _NUMBERS if name in fields},
    )
