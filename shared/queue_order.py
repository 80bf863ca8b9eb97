"""Which queue a worker takes its next message from: interactive ones first, and bulk never left behind."""

from collections.abc import Iterable
from dataclasses import dataclass

from shared import keys
from shared.drain import service_rate
from shared.schemas import Job, JobStatus, Priority, Standing

#: A worker takes so many interactive messages in a row at the most while a bulk one waits.
INTERACTIVE_TURNS = 9
#: The share of the work that bulk jobs have, however many interactive ones wait.
BULK_SHARE = 1 / (INTERACTIVE_TURNS + 1)
QUEUES = {Priority.INTERACTIVE: keys.INFERENCE_QUEUE, Priority.BULK: keys.BULK_QUEUE}


class WeightedOrder:
    """What kombu asks before each message and tells after it, as `queue_order_strategy` of its transport.

    BRPOP takes from the first of its lists that holds something, so their order decides.
    """

    def __init__(self) -> None:
        self._queues: list[str] = []
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
    """What a client is told of its queued job; None is "not known"."""

    #: How many queued jobs leave before it, if none is added.
    position: int | None = None
    #: In how many seconds it has its turn; the time of one tile is little beside that.
    eta_seconds: float | None = None


def place_of(job: Job) -> Place | None:
    """Return where a queued job stood when it was read; None for any other."""
    if job.status != JobStatus.QUEUED:
        return None
    if job.standing is None:
        return Place()
    return Place(_position(job.spec.priority, job.standing), eta_seconds(job.spec.priority, job.standing))


def eta_seconds(priority: Priority, standing: Standing) -> float | None:
    """Return in how many seconds a job that stands so has its turn; None where nothing ended lately.

    The time of the job itself is left out, so that whoever is next is not told of a wait.
    """
    rate = service_rate(standing.ended_lately, standing.busy_ms_lately)
    if not rate:
        return None
    seconds = _position(priority, standing) / rate
    if priority == Priority.BULK:
        # A bulk job waits for interactive ones that are still to come, too.
        bulk_rate = service_rate(standing.bulk_ended_lately, standing.busy_ms_lately)
        seconds = max(seconds, standing.ahead / max(bulk_rate, rate * BULK_SHARE))
    return round(seconds, 1)


def _position(priority: Priority, standing: Standing) -> int:
    ahead, others = standing.ahead, standing.others
    if priority == Priority.INTERACTIVE:
        return ahead + min(others, ahead // INTERACTIVE_TURNS)
    return ahead + min(others, (ahead + 1) * INTERACTIVE_TURNS)
