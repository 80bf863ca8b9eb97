"""Run a function over many items in a few threads, with only a few items in memory."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def check_concurrency(number: int) -> None:
    """Return if something can be done with so many at once.

    Raises:
        ValueError: if it cannot: nothing would ever be done.
    """
    if number < 1:
        raise ValueError(f"Expected a concurrency of 1 or more. Received: {number}")


def run_over(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    threads: int,
    tick_seconds: float | None = None,
) -> Iterator[Outcome | None]:
    """Yield what the function returns, as it comes; takes at most twice as many items as there are threads.

    `items` is advanced by the caller's thread alone. With `tick_seconds`, None is yielded whenever nothing
    came for so long. An error of the function is raised here and ends it all. The threads are daemons:
    whoever stops early does not wait for them.

    Raises:
        ValueError: if there is to be no thread.
    """
    check_concurrency(threads)
    waiting = iter(items)
    inbox: queue.SimpleQueue[tuple[Item] | None] = queue.SimpleQueue()
    outbox: queue.SimpleQueue[tuple[Outcome | None, BaseException | None]] = queue.SimpleQueue()
    stopping = threading.Event()

    def work() -> None:
        while (item := inbox.get()) is not None and not stopping.is_set():
            try:
                outbox.put((function(item[0]), None))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                outbox.put((None, error))

    for _ in range(threads):
        threading.Thread(target=work, name="histoqueue", daemon=True).start()
    try:
        yield from _feed(waiting, inbox, outbox, 2 * threads, tick_seconds)
    finally:
        stopping.set()
        for _ in range(threads):
            inbox.put(None)


def _feed(
    waiting: Iterator[Item],
    inbox: queue.SimpleQueue[tuple[Item] | None],
    outbox: queue.SimpleQueue[tuple[Outcome | None, BaseException | None]],
    most: int,
    tick_seconds: float | None,
) -> Iterator[Outcome | None]:
    taken = 0
    while True:
        for item in itertools.islice(waiting, most - taken):
            inbox.put((item,))
            taken += 1
        if not taken:
            return
        try:
            outcome, error = outbox.get(timeout=tick_seconds)
        except queue.Empty:
            yield None
            continue
        taken -= 1
        if error is not None:
            raise error
        yield outcome
