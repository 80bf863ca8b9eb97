"""What waits together is handed on together."""

import threading
from concurrent.futures import ThreadPoolExecutor

from worker.gatherer import Gatherer


def test_what_comes_before_somebody_takes_is_one_group() -> None:
    """The first of a group calls; nobody is called for the others."""
    calls: list[str] = []
    gatherer: Gatherer[int] = Gatherer(lambda: calls.append("call"))
    for item in (1, 2, 3):
        gatherer.put(item)
    assert calls == ["call"]
    assert gatherer.take() == [1, 2, 3]
    assert gatherer.take() == []
    gatherer.put(4)
    assert calls == ["call", "call"]
    assert gatherer.take() == [4]


def test_nothing_is_left_behind_or_taken_twice() -> None:
    """Many threads put, and those that are called take: each item is in one group."""
    taken: list[int] = []
    lock = threading.Lock()

    def take() -> None:
        group = gatherer.take()
        with lock:
            taken.extend(group)

    with ThreadPoolExecutor(4) as takers:
        gatherer: Gatherer[int] = Gatherer(lambda: takers.submit(take))
        with ThreadPoolExecutor(8) as putters:
            list(putters.map(gatherer.put, range(2000)))
    assert sorted(taken) == list(range(2000))
