"""Hand things on in groups that grow with the load."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Gatherer(Generic[Item]):
    """What comes before somebody takes is taken together; the first of a group has somebody called."""

    def __init__(self, call: Callable[[], object]) -> None:
        """`call` has a thread call `take`, soon, and returns."""
        self._call = call
        self._lock = threading.Lock()
        self._items: list[Item] = []

    def put(self, item: Item) -> None:
        """Add one."""
        with self._lock:
            self._items.append(item)
            is_first = len(self._items) == 1
        if is_first:
            self._call()

    def take(self) -> list[Item]:
        """Return all that were put since the last time, in order."""
        with self._lock:
            items, self._items = self._items, []
        return items
