"""How the ledger speaks to Redis: its scripts, its clock, its records."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import NoScriptError

from shared import keys
from shared.errors import (
    HistoQueueError,
    JobStoreUnavailable,
    LedgerRebuilding,
    QueueFull,
    QuotaReached,
    ResultExpired,
)
from shared.job_store import key_reused
from shared.lua_scripts import read, webhook_functions
from shared.redis_exchange import Exchange
from shared.schemas import (
    Batch,
    InputInfo,
    Job,
    JobError,
    JobSpec,
    JobStatus,
    ModelRef,
    NewJob,
    Priority,
    Standing,
)

#: A create that reaches Redis this late after it was sent is refused: its caller was told "try again".
CREATE_PATIENCE_MS = 3_000
_INDEXES = [keys.OPEN, keys.PUBLISHED, keys.PUBLISHED_BULK, keys.LEASED, keys.DRAINED, keys.ENDED,
            keys.UNARCHIVED, keys.FOUNDED, keys.COUNTED, keys.OWNED, keys.BATCH, keys.INFERENCE_QUEUE,
            keys.BULK_QUEUE, keys.BUSY]  # fmt: skip
_ACCEPTING = ("create", "retry", "batch_create", "restore")
_SETTLING = ("get", "claim", "renew", "finish", "release", "strike", "cancel", "delete", "reap",
             "cleanable", "clean", "unarchived", "archived", "unarchive", "swept", "batch_get",
             "batch_ended")  # fmt: skip
#: What ends work that was accepted may use the last of Redis' memory; what accepts more may not.
USES_ALL_MEMORY = "#!lua flags=allow-oom\n"
#: What reading a record raises that this version does not understand.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
#: What else a spec says, in the order in which the record has it; new ones come last.
_SAID = ("custom_id", "request_id", "explain")
#: What counts the members that ended without a result, before the code of their error.
_REASON = "reason:"
#: What a record says in whole numbers.
NUMBERS = ("version", "created_at_ms", "deadline_ms", "published_at_ms", "started_at_ms", "finished_at_ms",
           "expires_at_ms", "attempt", "lost", "strikes")  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One call of a script: the job, and the arguments and keys beside those that every script gets."""

    job_id: str
    arguments: Sequence[str | float] = ()
    extra_keys: Sequence[str] = ()


class RedisLedger:
    """Calls one script a transition, on Redis' own clock."""

    def __init__(self, client: redis.Redis, clock_ms: Callable[[], int] | None = None) -> None:
        """`clock_ms` stands for Redis' clock in every script: tests make time pass with it."""
        self._redis = client
        self._exchange = Exchange(client)
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
                self._clock_lead_ms = self._ask_now_ms() - monotonic_ms()
        return monotonic_ms() + self._clock_lead_ms

    def _ask_now_ms(self) -> int:
        """Return Redis' time, asked for: an estimate is wrong since that was set, or this machine slept."""
        if self._clock:
            return self._clock()
        seconds, micros = self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def _call(self, name: str, job_id: str, *arguments: str | float, extra_keys: Sequence[str] = ()) -> Any:
        (answer,) = self._call_all(name, [Call(job_id, arguments, extra_keys)])
        return answer

    def _call_all(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Call a script for several jobs in one exchange, which other threads' calls may share.

        Raises:
            JobStoreUnavailable: if one of the answers is an error of Redis.
        """
        return whole(self._call_many(name, calls))

    def _call_many(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Do the same; an answer may be an error of Redis."""
        script = self._scripts[name]
        clock = self._clock() if self._clock else ""
        commands = [
            ("EVALSHA", script.sha, len(names), *names, clock, keys.CHANGES, call.job_id, *call.arguments)
            for call in calls
            for names in ([keys.JOB + call.job_id, *_INDEXES, *call.extra_keys],)
        ]
        with answering():
            answers = self._exchange.run(commands)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                self._redis.script_load(script.script)
                answers = self._exchange.run(commands)
            return answers


@contextmanager
def answering() -> Iterator[None]:
    """Have every error of Redis leave the block as JobStoreUnavailable."""
    try:
        yield
    except redis.RedisError as error:
        # The text of a connection error names the server's address: for the log, not for a client.
        raise JobStoreUnavailable("The job store does not answer. Ask again later.") from error


def whole(answers: list[Any]) -> list[Any]:
    """Return the answers of one exchange if none of them is an error of Redis.

    Raises:
        JobStoreUnavailable: if one is.
    """
    with answering():
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise answer
    return answers


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds."""
    return int(seconds * 1000)


def monotonic_ms() -> float:
    """Return a time of this process that never goes back."""
    return time.monotonic_ns() / 1_000_000


def create_arguments(
    new: NewJob,
    now_ms: int,
    max_open: int,
    accepted_at_ms: int | None,
    max_owned: int,
    answered_by: str = "",
) -> list[str | float]:
    """Return what create.lua is told of a job."""
    return [
        now_ms + CREATE_PATIENCE_MS,
        max_open,
        spec_text(new.id, new.spec),
        milliseconds(new.expires_in_seconds),
        milliseconds(new.retention_seconds),
        milliseconds(new.tombstone_seconds),
        milliseconds(new.image_retention_seconds),
        new.idempotency.fingerprint if new.idempotency else "",
        keys.JOB,
        accepted_at_ms or 0,
        new.spec.owner or "",
        max_owned,
        new.spec.priority if new.spec.priority != Priority.INTERACTIVE else "",
        new.spec.batch or "",
        answered_by,
        new.spec.webhook_url or "",
    ]


def created_or_refused(outcome: str, payload: Any, max_open: int, max_owned: int) -> Job | HistoQueueError:
    """Return the job that create.lua or retry.lua accepted or found, or why there is none."""
    refusals: dict[str, Callable[[], HistoQueueError]] = {
        "rebuilding": LedgerRebuilding,
        "late": lambda: JobStoreUnavailable(
            "Redis answered too late. Nothing was accepted; send the request again."
        ),
        "full": lambda: QueueFull(int(payload), max_open),
        "quota": lambda: QuotaReached(int(payload), max_owned),
        "conflict": key_reused,
        "unanswered": lambda: ResultExpired("The earlier result is kept no more."),
    }
    return refusals[outcome]() if outcome in refusals else to_job(payload)


def spec_text(job_id: str, spec: JobSpec) -> str:
    """Return what the record says of a spec: values without their names, and nothing that stands elsewhere.

    The names, once for each job, would be a tenth of what it takes in Redis.
    """
    folder = spec.input.key.removesuffix(job_id)
    values: list[Any] = [
        list(spec.model.model_dump().values()),
        list(spec.input.model_copy(update={"key": folder}).model_dump().values()),
        *(getattr(spec, name) for name in _SAID),
    ]
    while not values[-1]:
        values.pop()
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def read_spec(job_id: str, fields: Mapping[str, str]) -> JobSpec:
    """Return the spec of a record."""
    model, accepted, *said = json.loads(fields["spec"])
    image = dict(zip(InputInfo.model_fields, accepted, strict=False))
    if image["key"].endswith("/"):
        image["key"] += job_id
    return JobSpec(
        model=ModelRef(**dict(zip(ModelRef.model_fields, model, strict=False))),
        input=InputInfo(**image),
        **{name: value for name, value in zip(_SAID, said, strict=False) if value is not None},
        owner=fields.get("owner"),
        priority=Priority(fields.get("priority", Priority.INTERACTIVE)),
        batch=fields.get("batch"),
        webhook_url=fields.get("webhook_url"),
    )


def by_name(flat: Sequence[str]) -> dict[str, str]:
    """Return the fields of a hash, which a script returns as a list of names and values."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def to_job(flat: Sequence[str]) -> Job:
    """Read a record, as a script returns it."""
    fields = by_name(flat)
    return Job(
        id=fields["id"],
        spec=read_spec(fields["id"], fields),
        status=JobStatus(fields["status"]),
        result=json.loads(fields["result"]) if "result" in fields else None,
        error=JobError.model_validate_json(fields["error"]) if "error" in fields else None,
        cached="cached" in fields,
        timings_ms=json.loads(fields["timings_ms"]) if "timings_ms" in fields else None,
        standing=Standing.of(json.loads(fields["standing"])) if "standing" in fields else None,
        **{name: int(fields[name]) for name in NUMBERS if name in fields},
    )


def to_batch(flat: Sequence[str]) -> Batch:
    """Read a batch, as a script returns it."""
    fields = by_name(flat)
    completed = int(fields["completed_at_ms"]) if "completed_at_ms" in fields else None
    return Batch(
        id=fields["id"],
        owner=fields["owner"] or None,
        webhook_url=fields.get("webhook_url"),
        created_at_ms=int(fields["created_at_ms"]),
        is_whole="is_whole" in fields,
        completed_at_ms=completed,
        expires_at_ms=None if completed is None else completed + int(fields["retention_ms"]),
        counts={status: int(fields.get(status, 0)) for status in JobStatus},
        deleted=int(fields.get("deleted", 0)),
        reasons={
            name.removeprefix(_REASON): int(number)
            for name, number in sorted(fields.items())
            if name.startswith(_REASON)
        },
        ends=int(fields["ends"]),
    )
