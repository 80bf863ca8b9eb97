"""Ask again where time must pass: as the server says, with full jitter, within a limit."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from ._errors import Unavailable
from ._http import Answer, Flow, Pause, Request, Unanswered

#: A fault inside the server may be due to this very image: it is not asked about for as long as a full queue.
MOST_FAULTS = 4


@dataclass(frozen=True)
class Patience:
    """How long one call may go on asking, and the chance and the clock that it uses."""

    #: From the first request to the last one.
    seconds: float = 60.0
    #: The longest pause before the first repetition; it doubles with each.
    first_seconds: float = 0.5
    most_seconds: float = 20.0
    uniform: Callable[[float, float], float] = random.uniform
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not self.seconds >= 0:  # NaN is not either
            raise ValueError(f"Expected a patience of 0 seconds or more. Received: {self.seconds}")

    def pause_seconds(self, attempt: int, retry_after_seconds: float | None) -> float:
        """Return how long to wait after the attempt of this number, the first being 0.

        What the server asked for is waited for whole; the jitter comes on top, so that clients that were
        refused together do not come back together.
        """
        jitter = self.uniform(0.0, min(self.most_seconds, self.first_seconds * 2 ** min(attempt, 30)))
        return (retry_after_seconds or 0.0) + jitter


def exchange(request: Request, patience: Patience) -> Flow[Answer]:
    """Return the answer to a request, asking again while its error is one of time.

    Raises:
        HistoQueueError: the error of the last answer.
    """
    began = patience.clock()
    for attempt in itertools.count():
        answer = yield request
        if isinstance(answer, Answer) and answer.status < 400:
            return answer
        assert answer is not None, "a request was replied to as if it were a pause"  # noqa: S101
        error = answer.error()
        pause = patience.pause_seconds(attempt, error.retry_after_seconds)
        is_lasting = isinstance(answer, Unanswered) and answer.is_lasting
        if is_lasting or not (request.repeat and error.is_temporary):
            raise error
        if attempt + 1 >= MOST_FAULTS and not isinstance(error, Unavailable):
            raise error
        if patience.clock() - began + pause > patience.seconds:
            raise error
        yield Pause(pause)
    raise AssertionError("unreachable")
