"""What is told to webhooks: each event once in the ledger, written in the very call that made it true.

    announced ─> pending ─claim─> (being made) ─settle─> delivered
                    ^                               ├──> pending, later
                    └── lost message, lost sender   ├──> failed: its time is over
                                                    └──> disabled: the receiver wants no more of this subject

A subject is what an event is about: a job or a batch, by the key of its record. Its deliveries go with it.
No host gets more than so many at a time, and one whose places are all taken costs the others nothing. A
host is one for each API key that names it.

`deliveries_redis.py` is the real side, `deliveries_memory.py` the one for tests; both are held to
`tests/contract/test_deliveries.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from shared import keys
from shared.schemas import Batch, Job

#: How many attempts of a delivery are remembered, the newest.
MOST_TRIES = 50
#: How many hosts one look takes on.
HOSTS_AT_ONCE = 200


class DeliveryState(StrEnum):
    """Where a delivery stands; all but the first are ends, until it is made once more by hand."""

    PENDING = "pending"
    #: Answered with 2xx.
    DELIVERED = "delivered"
    #: Not within its time.
    FAILED = "failed"
    #: Answered with 410, this one or another of the same subject.
    DISABLED = "disabled"


class Try(BaseModel):
    """One attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Milliseconds since the epoch, by the ledger's clock.
    at_ms: int
    #: The status of the answer; None where there was none.
    status: int | None = None
    #: Why it counts as refused, one word; None for a 2xx.
    error: str | None = None
    duration_ms: int


@dataclass(frozen=True)
class Taken:
    """A delivery that is given out: what a message to a sender carries."""

    delivery_id: str
    #: Where it goes, as `Delivery.host` has it.
    host: str

    @property
    def owner(self) -> str | None:
        """The API key that it is sent for; None where there was none."""
        owner, blank, _ = self.host.partition(" ")
        return owner if blank else None


@dataclass(frozen=True)
class Delivery:
    """One event and what became of telling it. Times are ms since the epoch, by the ledger's clock."""

    #: Also the `webhook-id`, the same at every attempt.
    id: str
    #: Such as job.succeeded, or batch.completed.
    event: str
    url: str
    #: As places are counted: the URL's host; where there is an API key, behind the key's id and a blank.
    host: str
    #: The job, or the batch, as it was when the event happened.
    about: Job | Batch
    state: DeliveryState
    attempt: int
    announced_at_ms: int
    #: From when its time is counted: the event, or the last wish to make it once more.
    since_ms: int
    #: When the next attempt is due; None where there is none.
    due_ms: int | None
    #: When the last attempt was begun.
    started_at_ms: int | None
    #: Newest first.
    tries: Sequence[Try]


@dataclass(frozen=True)
class DeliveryTotals:
    """How many there are, and what became of all since the ledger began."""

    pending: int
    #: Since when the oldest of these is pending.
    oldest_pending_at_ms: int | None
    #: delivered, failed, disabled -> deliveries that came to it; one made by hand may come to one again.
    ended: dict[str, int]
    #: accepted, refused -> attempts.
    attempts: dict[str, int]


def job_subject(job_id: str) -> str:
    """Return what the deliveries of this job are found by."""
    return keys.JOB + job_id


def batch_subject(batch_id: str) -> str:
    """Return what the deliveries of this batch are found by."""
    return keys.BATCH + batch_id


class Deliveries(Protocol):
    """What can be done with them. Every method raises JobStoreUnavailable where it cannot answer in time.

    They come to be in the job store, with the end of a job or a batch whose `webhook_url` is set.
    """

    def take(
        self, places: int, most_of_a_host: int, hold_seconds: float, host: str | None = None
    ) -> list[Taken]:
        """Give out deliveries whose time has come; those that nobody claims in `hold_seconds` come again.

        Args:
            places: how many of one host may be given out or being made at the same time.
            most_of_a_host: how many of one host this call may give out.
            hold_seconds: how long a message may be under way.
            host: this one alone.
        """

    def claim(self, taken: Taken, token: str, lease_seconds: float) -> Delivery | None:
        """Begin an attempt; None where the delivery is gone, at its end, not given out, or another's."""

    def settle(
        self, delivery_id: str, token: str, state: DeliveryState, made: Try, retry_seconds: float = 0
    ) -> bool:
        """End an attempt; PENDING: another follows so much later. False where the token holds it no more."""

    def of(self, subject: str) -> list[Delivery]:
        """Return a subject's deliveries, oldest first."""

    def is_off(self, subject: str) -> bool:
        """Tell whether its receiver wants no more of it."""

    def redeliver(self, subject: str) -> Delivery | None:
        """Make its newest delivery once more, also where it is off; None where there is none."""

    def totals(self) -> DeliveryTotals:
        """Count them."""
