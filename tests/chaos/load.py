"""Clients that submit and clients that wait, several at a time, until the time is over."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.client import Client
from tests.chaos.history import History
from tests.chaos.system import System
from tests.chaos.tiles import Tile

#: From the last submission to the end of the last job.
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
    _to_follow: "queue.SimpleQueue[str | None]" = field(default_factory=queue.SimpleQueue)
    _taking: threading.Lock = field(default_factory=threading.Lock)

    def run(self, clients: int, until: float, meanwhile: Callable[[], None] | None = None) -> None:
        """Submit until then, or until there are no more tiles; return when all have ended or time is out."""
        give_up_at = until + DRAIN_SECONDS

        def submit_all() -> None:
            works = [lambda: self._submit(until, give_up_at)] * clients
            try:
                in_parallel([*works, meanwhile] if meanwhile else works)
            finally:
                for _ in range(FOLLOWERS):
                    self._to_follow.put(None)

        in_parallel([submit_all, *[lambda: self._follow(give_up_at)] * FOLLOWERS])

    def read_again(self) -> None:
        """Ask for every job once more: what was final must be so, word for word."""
        for job_id in self.history.ended:
            self._to_follow.put(job_id)
        for _ in range(FOLLOWERS):
            self._to_follow.put(None)
        until = time.monotonic() + DRAIN_SECONDS
        in_parallel([lambda: self._follow(until)] * FOLLOWERS)

    def _submit(self, until: float, give_up_at: float) -> None:
        with Client(self.system, self.history) as client:
            sent = 0
            while time.monotonic() < until:
                with self._taking:
                    tile = next(self.tiles, None)
                if tile is None:
                    return
                sent += 1
                if job_id := client.submit(tile, give_up_at, repeat=sent % ONE_REPEATED_IN == 0):
                    self._to_follow.put(job_id)

    def _follow(self, until: float) -> None:
        with Client(self.system, self.history) as client:
            while (job_id := self._to_follow.get()) is not None:
                client.follow(job_id, until)


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
