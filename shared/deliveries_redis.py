"""What is told to webhooks, on Redis: one Lua call a transition, on Redis' own clock."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import redis
import structlog

from shared import keys
from shared.deliveries import (
    HOSTS_AT_ONCE,
    MOST_TRIES,
    Delivery,
    DeliveryState,
    DeliveryTotals,
    Taken,
    Try,
)
from shared.lua_scripts import read, webhook_functions
from shared.redis_ledger import UNREADABLE, USES_ALL_MEMORY, answering, by_name, to_batch, to_job

#: A record that cannot be read, such as a later version's, is tried again after this long.
UNREADABLE_HOLD_SECONDS = 600.0
_SCRIPTS = ("take", "claim", "settle", "redeliver")
_log = structlog.get_logger(__name__)


class RedisDeliveries:
    """See `shared.deliveries.Deliveries` for what each method promises."""

    def __init__(self, client: redis.Redis, clock_ms: Callable[[], int] | None = None) -> None:
        """`clock_ms` stands for Redis' clock in every script: tests make time pass with it."""
        self._redis = client
        self._clock = clock_ms
        # They end what was accepted, so they may use the last of Redis' memory.
        head = USES_ALL_MEMORY + webhook_functions()
        self._scripts = {name: client.register_script(head + read(f"webhook_{name}")) for name in _SCRIPTS}

    def take(
        self, places: int, most_of_a_host: int, hold_seconds: float, host: str | None = None
    ) -> list[Taken]:
        given = self._call(
            "take", HOSTS_AT_ONCE, places, most_of_a_host, int(hold_seconds * 1000), host or ""
        )
        return [Taken(*item) for item in given]

    def claim(self, taken: Taken, token: str, lease_seconds: float) -> Delivery | None:
        flat = self._call("claim", taken.delivery_id, taken.host, token, int(lease_seconds * 1000))
        if not flat:
            return None
        fields = by_name(flat)
        try:
            return _to_delivery(fields)
        except UNREADABLE:
            _log.exception(
                "delivery_unreadable", delivery_id=taken.delivery_id, hold_seconds=UNREADABLE_HOLD_SECONDS
            )
            # Its place is its host's: under the lease it would be kept from the others, again and again.
            made = Try(at_ms=int(fields["started_at_ms"]), error="unreadable", duration_ms=0)
            self.settle(taken.delivery_id, token, DeliveryState.PENDING, made, UNREADABLE_HOLD_SECONDS)
            return None

    def settle(
        self, delivery_id: str, token: str, state: DeliveryState, made: Try, retry_seconds: float = 0
    ) -> bool:
        wait_ms = int(retry_seconds * 1000)
        return bool(
            self._call("settle", delivery_id, token, state, made.model_dump_json(), wait_ms, MOST_TRIES)
        )

    def of(self, subject: str) -> list[Delivery]:
        with answering():
            ids = str(self._redis.hget(subject, "webhooks") or "").split()
            pipe = self._redis.pipeline(transaction=False)
            for delivery_id in ids:
                pipe.hgetall(keys.WEBHOOK + delivery_id)
            records = pipe.execute()
        return [_to_delivery(record) for record in records if record]

    def is_off(self, subject: str) -> bool:
        with answering():
            return self._redis.hget(subject, "webhook_off") is not None

    def redeliver(self, subject: str) -> Delivery | None:
        flat = self._call("redeliver", subject)
        return _to_delivery(by_name(flat)) if flat else None

    def totals(self) -> DeliveryTotals:
        with answering():
            pipe = self._redis.pipeline(transaction=True)
            pipe.zcard(keys.WEBHOOKS_PENDING)
            pipe.zrange(keys.WEBHOOKS_PENDING, 0, 0, withscores=True)
            pipe.hgetall(keys.WEBHOOKS_COUNTED)
            pending, oldest, counted = pipe.execute()
        ends = [state.value for state in DeliveryState if state != DeliveryState.PENDING]
        return DeliveryTotals(
            pending=pending,
            oldest_pending_at_ms=int(oldest[0][1]) if oldest else None,
            ended={state: int(counted.get(state, 0)) for state in ends},
            attempts={name: int(counted.get(name, 0)) for name in ("accepted", "refused")},
        )

    def _call(self, name: str, *arguments: str | float) -> Any:
        with answering():
            return self._scripts[name](args=[self._clock() if self._clock else "", *arguments])


def _to_delivery(fields: Mapping[str, str]) -> Delivery:
    return Delivery(
        id=fields["id"],
        event=fields["event"],
        url=fields["url"],
        host=fields["host"],
        about=(to_batch if fields["event"].startswith("batch.") else to_job)(json.loads(fields["data"])),
        state=DeliveryState(fields["state"]),
        attempt=int(fields["attempt"]),
        announced_at_ms=int(fields["announced_at_ms"]),
        since_ms=int(fields["since_ms"]),
        due_ms=int(fields["due_ms"]) if "due_ms" in fields else None,
        started_at_ms=int(fields["started_at_ms"]) if "started_at_ms" in fields else None,
        tries=tuple(Try.model_validate_json(line) for line in fields["tries"].splitlines()),
    )
