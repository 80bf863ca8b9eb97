"""What is told to webhooks, in one process' memory: what tests run against, with a clock they can move."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from shared.deliveries import HOSTS_AT_ONCE, MOST_TRIES, Delivery, DeliveryState, DeliveryTotals, Taken, Try
from shared.schemas import Batch, Job


@dataclass
class _Record:
    delivery: Delivery
    subject: str
    token: str = ""
    lease_until_ms: int = 0
    #: While it is given out or being made: when it counts as broken off.
    lapses_ms: int | None = None
    tries: list[Try] = field(default_factory=list)


class MemoryDeliveries:
    """See `shared.deliveries.Deliveries` for what each method promises."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock = clock_ms
        self._records: dict[str, _Record] = {}
        self._off: set[str] = set()
        self._counted: Counter[str] = Counter()
        self._lock = threading.RLock()

    def announce(self, subject: str, about: Job | Batch, url: str | None) -> None:
        """Have the end of a job or a batch delivered, if it has a webhook that is not off."""
        with self._lock:
            if url is None or subject in self._off:
                return
            now = self._clock()
            if isinstance(about, Batch):
                delivery_id, event = f"{about.id}_{about.ends}", "batch.completed"
            else:
                delivery_id, event = f"{about.id}_{about.version}_{now}", f"job.{about.status}"
            owner = about.owner if isinstance(about, Batch) else about.spec.owner
            host = url.partition("://")[2].partition("/")[0].partition("?")[0].lower()
            new = Delivery(
                id=delivery_id,
                event=event,
                url=url,
                host=f"{owner} {host}" if owner else host,
                about=about,
                state=DeliveryState.PENDING,
                attempt=0,
                announced_at_ms=now,
                since_ms=now,
                due_ms=now,
                started_at_ms=None,
                tries=(),
            )
            self._records[new.id] = _Record(new, subject)

    def forget(self, subject: str) -> None:
        """Drop a subject's deliveries."""
        with self._lock:
            self._records = {key: item for key, item in self._records.items() if item.subject != subject}

    def take(
        self, places: int, most_of_a_host: int, hold_seconds: float, host: str | None = None
    ) -> list[Taken]:
        with self._lock:
            now, taken = self._clock(), []
            for record in self._records.values():
                if record.lapses_ms is not None and record.lapses_ms <= now:
                    record.lapses_ms = None
            hosts = dict.fromkeys(item.delivery.host for item in self._due())
            for name in [host] if host else list(hosts)[:HOSTS_AT_ONCE]:
                mine = [item for item in self._records.values() if item.delivery.host == name]
                flying = sum(1 for item in mine if item.lapses_ms is not None)
                due = [item for item in self._due() if item.delivery.host == name]
                for record in due[: max(0, min(most_of_a_host, places - flying))]:
                    record.lapses_ms = now + int(hold_seconds * 1000)
                    taken.append(Taken(record.delivery.id, name))
            return taken

    def _due(self) -> list[_Record]:
        due = [
            item
            for item in self._records.values()
            if item.delivery.state == DeliveryState.PENDING
            and item.lapses_ms is None
            and (item.delivery.due_ms or 0) <= self._clock()
        ]
        return sorted(due, key=lambda item: (item.delivery.due_ms, item.delivery.id))

    def claim(self, taken: Taken, token: str, lease_seconds: float) -> Delivery | None:
        with self._lock:
            record, now = self._records.get(taken.delivery_id), self._clock()
            if record is None or record.delivery.state != DeliveryState.PENDING:
                return None
            if record.lease_until_ms > now:
                return record.delivery if record.token == token else None
            if record.lapses_ms is None:
                return None
            record.token = token
            record.lease_until_ms = record.lapses_ms = now + int(lease_seconds * 1000)
            attempt = record.delivery.attempt + 1
            record.delivery = replace(record.delivery, attempt=attempt, started_at_ms=now)
            return record.delivery

    def settle(
        self, delivery_id: str, token: str, state: DeliveryState, made: Try, retry_seconds: float = 0
    ) -> bool:
        with self._lock:
            record = self._records.get(delivery_id)
            if record is None or not record.token or record.token != token:
                return False
            tries = (made, *record.delivery.tries)[:MOST_TRIES]
            pending = state == DeliveryState.PENDING
            due = self._clock() + int(retry_seconds * 1000) if pending else None
            record.delivery = replace(record.delivery, state=state, tries=tries, due_ms=due)
            record.token, record.lease_until_ms, record.lapses_ms = "", 0, None
            self._counted["accepted" if state == DeliveryState.DELIVERED else "refused"] += 1
            if not pending:
                self._counted[state] += 1
            if state == DeliveryState.DISABLED:
                self._turn_off(record.subject)
            return True

    def _turn_off(self, subject: str) -> None:
        self._off.add(subject)
        for record in self._records.values():
            if record.subject == subject and record.delivery.state == DeliveryState.PENDING:
                record.delivery = replace(record.delivery, state=DeliveryState.DISABLED, due_ms=None)
                record.token, record.lapses_ms = "", None
                self._counted[DeliveryState.DISABLED] += 1

    def of(self, subject: str) -> list[Delivery]:
        with self._lock:
            return [item.delivery for item in self._records.values() if item.subject == subject]

    def is_off(self, subject: str) -> bool:
        return subject in self._off

    def redeliver(self, subject: str) -> Delivery | None:
        with self._lock:
            mine = [item for item in self._records.values() if item.subject == subject]
            if not mine:
                return None
            self._off.discard(subject)
            record, now = mine[-1], self._clock()
            due = record.delivery.due_ms if record.lapses_ms is not None else now
            record.delivery = replace(record.delivery, state=DeliveryState.PENDING, since_ms=now, due_ms=due)
            return record.delivery

    def totals(self) -> DeliveryTotals:
        with self._lock:
            pending = [
                item.delivery.since_ms
                for item in self._records.values()
                if item.delivery.state == DeliveryState.PENDING
            ]
            ends = [state.value for state in DeliveryState if state != DeliveryState.PENDING]
            return DeliveryTotals(
                pending=len(pending),
                oldest_pending_at_ms=min(pending, default=None),
                ended={state: self._counted[state] for state in ends},
                attempts={name: self._counted[name] for name in ("accepted", "refused")},
            )
