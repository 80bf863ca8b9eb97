"""Clients that submit and clients that wait, several at a time."""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.client import Client
from tests.chaos.history import History
from tests.chaos.system import System
from tests.chaos.tiles import Tile

#: From the last fault to the end of the last job.
DRAIN_SECONDS = 120.0
#: Clients that wait for results, beside those that submit.
FOLLOWERS = 8
#: One submission in so many is sent twice with the same key.
ONE_REPEATED_IN = 20


@dataclass
class Load:
    """Submits `tiles` from several threads, and follows each job to its end."""

    system: System
    tiles: Iterator[Tile]
    history: History = field(default_factory=History)
    #: Between two submissions of one client.
    pause_seconds: float = 0.0
    _to_follow: "queue.SimpleQueue[str | None]" = field(default_factory=queue.SimpleQueue)
    _taking: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _give_up_at: float = math.inf

    def run(self, clients: int, meanwhile: Callable[[], None] | None = None) -> float:
        """Submit until `meanwhile` is done, or there are no more tiles; then wait for what is open.

        Returns:
            How many seconds that last part took; what has not ended within `DRAIN_SECONDS` counts as lost.
        """

        def submit() -> None:
            try:
                in_parallel([*[self._submit] * clients, lambda: self._do(meanwhile)])
            finally:
                self._give_up_at = time.monotonic() + DRAIN_SECONDS
                self._end_following()

        in_parallel([submit, *[self._follow] * FOLLOWERS])
        return time.monotonic() - (self._give_up_at - DRAIN_SECONDS)

    def read_again(self) -> None:
        """Ask for every job once more: what was final must be so, word for word."""
        self._give_up_at = time.monotonic() + DRAIN_SECONDS
        for job_id in self.history.ended:
            self._to_follow.put(job_id)
        self._end_following()
        in_parallel([self._follow] * FOLLOWERS)

    def _do(self, meanwhile: Callable[[], None] | None) -> None:
        if meanwhile is not None:
            try:
                meanwhile()
            finally:
                self._stopped.set()
                # A submission that is under way may still find everything away.
                self._give_up_at = time.monotonic() + DRAIN_SECONDS

    def _submit(self) -> None:
        with self._client() as client:
            sent = 0
            while not self._stopped.wait(self.pause_seconds):
                with self._taking:
                    tile = next(self.tiles, None)
                if tile is None:
                    return
                sent += 1
                if job_id := client.submit(tile, repeat=sent % ONE_REPEATED_IN == 0):
                    self._to_follow.put(job_id)

    def _follow(self) -> None:
        with self._client() as client:
            while (job_id := self._to_follow.get()) is not None:
                client.follow(job_id)

    def _client(self) -> Client:
        return Client(self.system, self.history, lambda: time.monotonic() > self._give_up_at)

    def _end_following(self) -> None:
        for _ in range(FOLLOWERS):
            self._to_follow.put(None)


def in_parallel(works: Sequence[Callable[[], None]]) -> None:
    """Run them all, and raise what one of them raised."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
