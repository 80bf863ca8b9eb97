"""The job ledger on Redis: one Lua call a transition, on Redis' own clock."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared import keys
from shared.drain import DRAIN_WINDOW_SECONDS, busy_ms, first_recent, service_rate
from shared.errors import (
    HistoQueueError,
    JobStoreUnavailable,
    LedgerRebuilding,
    cause_of,
)
from shared.job_store import (
    MOST_LOST_WORKERS,
    REPUBLISH_AFTER_MS,
    Canceled,
    Change,
    Created,
    Ending,
    Heads,
    already_final,
    image_expired,
    key_reused,
    no_such_job,
    not_retryable,
    result_expired,
    watermark,
)
from shared.job_store_redis_batches import RedisBatches
from shared.job_store_redis_upkeep import RedisUpkeep
from shared.redis_address import RedisAddress
from shared.redis_ledger import (
    Call,
    answering,
    create_arguments,
    created_or_refused,
    milliseconds,
    monotonic_ms,
    spec_text,
    to_job,
    whole,
)
from shared.schemas import Admission, Depth, Idempotency, Job, JobStatus, NewJob, Priority, Waiting

#: How long a job is left alone that this version cannot read: another worker may be able to.
UNREADABLE_HOLD_SECONDS = 30.0
#: After so long the reaper tries a job again that Redis gave an error for.
_LOOK_AGAIN_MS = 60_000
_log = structlog.get_logger(__name__)
_PUBLISHED = {Priority.INTERACTIVE: keys.PUBLISHED, Priority.BULK: keys.PUBLISHED_BULK}


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


class RedisJobStore(RedisBatches, RedisUpkeep):
    """See `shared.job_store.JobStore` for what each method promises."""

    def create(
        self, new: NewJob, max_open: int, accepted_at_ms: int | None = None, max_owned: int = 0
    ) -> Created:
        created = self._create(new, max_open, accepted_at_ms, max_owned, "")
        assert created is not None, "only an answer can be gone"  # noqa: S101
        return created

    def admission(self, owner: str | None, answer_key: str | None = None) -> Admission:
        with answering():
            answers = self._exchange.run(
                [
                    ("ZCARD", keys.OPEN),
                    ("HGET", keys.OWNED, owner or ""),
                    ("EXISTS", keys.FOUNDED),
                    ("GET", keys.ANSWER + (answer_key or "")),
                ]
            )
        open_, owned, is_founded, answered_by = whole(answers)
        return Admission(
            open=open_, owned=int(owned or 0), is_founded=bool(is_founded), answered_by=answered_by
        )

    def answer(self, new: NewJob, answered_by: str) -> Created | None:
        return self._create(new, 0, None, 0, answered_by)

    def _create(
        self, new: NewJob, max_open: int, accepted_at_ms: int | None, max_owned: int, answered_by: str
    ) -> Created | None:
        outcome, payload = self._try_create(new, max_open, accepted_at_ms, max_owned, answered_by)
        if outcome == "late":
            # Redis' clock was set, or another server took over: its time is known again now.
            outcome, payload = self._try_create(new, max_open, accepted_at_ms, max_owned, answered_by)
        if outcome == "unanswered":
            return None
        if outcome == "replayed":
            # Read as any job is: it may be past its deadline by now.
            _, _, payload = self._call("get", payload)
        found = created_or_refused(outcome, payload, max_open, max_owned)
        if isinstance(found, HistoQueueError):
            raise found
        return Created(found, replayed=outcome == "replayed")

    def _try_create(
        self, new: NewJob, max_open: int, accepted_at_ms: int | None, max_owned: int, answered_by: str
    ) -> tuple[str, Any]:
        now_ms = int(self._redis_now_ms())
        arguments = create_arguments(new, now_ms, max_open, accepted_at_ms, max_owned, answered_by)
        extra = [keys.IDEMPOTENCY + new.idempotency.key] if new.idempotency else []
        outcome, now, *payload = self._call("create", new.id, *arguments, extra_keys=extra)
        self._clock_lead_ms = int(now) - monotonic_ms()
        return outcome, payload[0] if payload else None

    def find_replay(self, idempotency: Idempotency) -> Job | None:
        with answering():
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
            raise key_reused()
        return to_job(record)

    def get(self, job_id: str) -> Job:
        outcome, now, record = self._call("get", job_id)
        _check_known(outcome, job_id)
        job = to_job(record)
        if job.expires_at_ms is not None and int(now) > job.expires_at_ms:
            raise result_expired(job.spec.owner)
        return job

    def claim_all(
        self, tokens: Mapping[str, str], lease_seconds: float, max_run_seconds: float
    ) -> dict[str, Job]:
        most = (milliseconds(lease_seconds), milliseconds(max_run_seconds), MOST_LOST_WORKERS)
        answers = self._call_many("claim", [Call(job_id, (token, *most)) for job_id, token in tokens.items()])
        if all(isinstance(answer, redis.RedisError) for answer in answers):
            whole(answers)
        claimed = {}
        for (job_id, token), answer in zip(tokens.items(), answers, strict=True):
            # Each by itself: the others are this worker's already, and nobody else would look after them.
            try:
                if isinstance(answer, redis.RedisError):
                    raise answer
                outcome, *record = answer
                if outcome == "claimed":
                    claimed[job_id] = to_job(record[0])
            except redis.RedisError as error:
                _log.error("job_not_claimed", job_id=job_id, error=str(error))
            except Exception:  # noqa: BLE001 - logged whole
                _log.exception("job_unreadable", job_id=job_id, hold_seconds=UNREADABLE_HOLD_SECONDS)
                self._hand_back(job_id, token)
        return claimed

    def _hand_back(self, job_id: str, token: str) -> None:
        try:
            self.release(job_id, token, UNREADABLE_HOLD_SECONDS)
        except JobStoreUnavailable as error:
            # Its lease lapses.
            _log.warning("job_not_released", job_id=job_id, cause=cause_of(error))

    def renew(self, job_id: str, token: str, lease_seconds: float) -> bool:
        return bool(self._call("renew", job_id, token, milliseconds(lease_seconds)))

    def end_all(self, endings: Sequence[Ending]) -> list[bool | Exception]:
        calls = list(map(_finish, endings))
        answers = iter(self._call_many("finish", [call for call in calls if isinstance(call, Call)]))
        return [_said(next(answers)) if isinstance(call, Call) else call for call in calls]

    def release(self, job_id: str, token: str, hold_seconds: float) -> bool:
        return bool(self._call("release", job_id, token, milliseconds(hold_seconds)))

    def strike(self, job_id: str, token: str, strikes: int) -> bool:
        return bool(self._call("strike", job_id, token, strikes))

    def cancel(self, job_id: str) -> Canceled:
        outcome, *record = self._call("cancel", job_id, _token())
        _check_known(outcome, job_id)
        job = to_job(record[0])
        if outcome == "final":
            raise already_final(job.status)
        return Canceled(job, was_running=outcome == JobStatus.RUNNING)

    def delete(self, job_id: str) -> str:
        spec = self._spec(job_id)
        (outcome,) = self._call("delete", job_id, spec_text(job_id, spec.forgotten()) if spec else "")
        _check_known(outcome, job_id)
        return spec.input.key if spec else ""

    def retry(self, job_id: str, max_open: int, max_owned: int = 0) -> Job:
        outcome, _, *payload = self._call("retry", job_id, max_open, max_owned, _token())
        _check_known(outcome, job_id)
        if outcome == "refused":
            raise not_retryable(JobStatus(payload[0]))
        if outcome == "gone":
            raise image_expired()
        found = created_or_refused(outcome, payload[0], max_open, max_owned)
        if isinstance(found, HistoQueueError):
            raise found
        return found

    def due(self, heads: Heads, limit: int) -> list[str]:
        with answering():
            now = self._ask_now_ms()
            pipe = self._redis.pipeline(transaction=False)
            for index, until in (
                (keys.LEASED, now),
                *((_PUBLISHED[priority], watermark(heads, priority, now)) for priority in Priority),
                (keys.OPEN, now),
            ):
                pipe.zrange(index, "-inf", f"({until}", byscore=True, offset=0, num=limit)
            found: list[list[str]] = pipe.execute()
        return list(dict.fromkeys(job_id for ids in found for job_id in ids))

    def reap(self, job_ids: Sequence[str], heads: Heads) -> list[str]:
        published = []
        found = [heads.get(priority) for priority in Priority]
        times = ["" if head_ms is None else head_ms for head_ms in found]
        for job_id in job_ids:
            arguments = (MOST_LOST_WORKERS, *times, REPUBLISH_AFTER_MS)
            (answer,) = self._call_many("reap", [Call(job_id, arguments)])
            if isinstance(answer, redis.RedisError):
                _log.error("job_not_reaped", job_id=job_id, error=str(answer))
                self._look_later(job_id)
            elif answer == "published":
                published.append(job_id)
        return published

    def _look_later(self, job_id: str) -> None:
        """Keep a job from being due for a while, wherever it stands."""
        with answering():
            time_ms = self._ask_now_ms() + _LOOK_AGAIN_MS
            pipe = self._redis.pipeline(transaction=False)
            for index in (keys.LEASED, *_PUBLISHED.values(), keys.OPEN):
                pipe.zadd(index, {job_id: time_ms}, xx=True, gt=True)
            pipe.execute()

    def depth(self) -> Depth:
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zcard(keys.OPEN)
            pipe.zcard(keys.LEASED)
            for priority in Priority:
                pipe.zcard(_PUBLISHED[priority])
                pipe.zrange(_PUBLISHED[priority], 0, 0, withscores=True)
            open_, leased, *queues = pipe.execute()
        return Depth(
            open=open_,
            running=leased,
            waiting={
                priority: Waiting(queued=queued, oldest_published_at_ms=int(oldest[0][1]) if oldest else None)
                for priority, queued, oldest in zip(Priority, queues[::2], queues[1::2], strict=True)
            },
        )

    def drain_rate(self, priority: Priority | None = None) -> float:
        return self._ended_lately(priority) / DRAIN_WINDOW_SECONDS

    def _ended_lately(self, priority: Priority | None = None) -> int:
        with answering():
            buckets: dict[str, str] = self._redis.hgetall(keys.DRAINED)  # type: ignore[assignment]
        first = first_recent(int(self._redis_now_ms()))
        ended = {"": 0, "bulk": 0}
        for name, number in buckets.items():
            bucket, _, kind = name.partition(":")
            ended[kind] += int(number) if int(bucket) >= first else 0
        counted = {None: ended[""], Priority.BULK: ended["bulk"]}
        return counted.get(priority, ended[""] - ended["bulk"])

    def service_rate(self) -> float:
        with answering():
            found: dict[str, str] = self._redis.hgetall(keys.BUSY)  # type: ignore[assignment]
        since = found.pop("since", None)
        noted = {int(interval): int(ms) for interval, ms in found.items()}
        busy = busy_ms(noted, int(since) if since else None, int(self._redis_now_ms()))
        return service_rate(self._ended_lately(), busy)

    def changes(self) -> Iterator[Change | None]:
        with answering(), self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(keys.CHANGES)
            while True:
                message = pubsub.get_message(timeout=1.0)
                yield _change(str(message["data"])) if message else None


def _token() -> str:
    """Return what tells a call from every other one, and not from its repetition by the connection."""
    return secrets.token_hex(8)


def _finish(ending: Ending) -> Call | Exception:
    """Return what finish.lua is told of a job, or why that cannot be said."""
    try:
        outcome = (
            (JobStatus.FAILED, "error", ending.error.model_dump_json())
            if ending.error
            else (JobStatus.SUCCEEDED, "result", json.dumps(ending.result))
        )
        timings = json.dumps(ending.timings_ms)
    except Exception as error:  # noqa: BLE001 - of this one alone
        return error
    extra = [keys.ANSWER + ending.answer_key] if ending.answer_key and not ending.error else []
    return Call(ending.job_id, (ending.token, *outcome, timings), extra)


def _said(answer: Any) -> bool | Exception:
    """Return what finish.lua says of a job, or why it says nothing."""
    try:
        return bool(whole([answer])[0])
    except JobStoreUnavailable as error:
        return error


def _change(notice: str) -> Change | None:
    """Read a notice; None for one that is not in our words, such as another version's."""
    job_id, _, rest = notice.partition(" ")
    status, _, record = rest.partition(" ")
    try:
        return Change(job_id, JobStatus(status), partial(_ended, record) if record else None)
    except ValueError:
        return None


def _ended(record: str) -> Job:
    return to_job(json.loads(record))


def _check_known(outcome: str, job_id: str) -> None:
    if outcome == "rebuilding":
        raise LedgerRebuilding
    if outcome == "unknown":
        raise no_such_job(job_id)
