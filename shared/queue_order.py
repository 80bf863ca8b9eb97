"""Which queue a worker takes its next message from: interactive ones first, and bulk never left behind."""

from collections.abc import Iterable
from dataclasses import dataclass

from shared import keys
from shared.schemas import Priority

#: A worker takes so many interactive messages in a row at the most while a bulk one waits.
INTERACTIVE_TURNS = 9
#: The share of the work that bulk jobs have, however many interactive ones wait.
BULK_SHARE = 1 / (INTERACTIVE_TURNS + 1)
QUEUES = {Priority.INTERACTIVE: keys.INFERENCE_QUEUE, Priority.BULK: keys.BULK_QUEUE}


class WeightedOrder:
    """What kombu asks before each message and tells after it, as `queue_order_strategy` of its transport.

    BRPOP takes from the first of its lists that holds something, so their order decides.
    """

    def __init__(self, queues: Iterable[str] | None = None) -> None:
        self._queues = list(queues or ())
        self._turns = 0

    def update(self, queues: Iterable[str]) -> None:
        """Consume from these from now on."""
        self._queues = list(queues)

    def consume(self, count: int) -> list[str]:
        """Return the queues in the order in which the next message is looked for."""
        bulk_first = self._turns >= INTERACTIVE_TURNS
        return sorted(self._queues, key=lambda name: (name == keys.BULK_QUEUE) is not bulk_first)[:count]

    def rotate(self, last_used: str) -> str:
        """Note where a message came from."""
        self._turns = 0 if last_used == keys.BULK_QUEUE else self._turns + 1
        return last_used


@dataclass(frozen=True)
class Place:
    """Where a queued job stands."""

    priority: Priority
    #: Queued jobs of its own priority that are ahead of it.
    ahead: int
    #: Queued jobs of the other priority.
    others: int

    @property
    def position(self) -> int:
        """How many queued jobs leave before it, if none is added."""
        if self.priority == Priority.INTERACTIVE:
            return self.ahead + min(self.others, self.ahead // INTERACTIVE_TURNS)
        return self.ahead + min(self.others, (self.ahead + 1) * INTERACTIVE_TURNS)

    def eta_seconds(self, drain_rate: float, bulk_rate: float) -> float | None:
        """Return in how many seconds it ends; None where nothing ended lately.

        `drain_rate` is of all jobs and `bulk_rate` of the bulk ones, each in jobs a second over the last
        minute: a bulk job waits for interactive ones that are still to come, too.
        """
        if not drain_rate:
            return None
        seconds = (self.position + 1) / drain_rate
        if self.priority == Priority.BULK:
            seconds = max(seconds, (self.ahead + 1) / max(bulk_rate, drain_rate * BULK_SHARE))
        return round(seconds, 1)
