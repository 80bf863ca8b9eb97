"""The threads that send, dealt among the API keys: one key's slow receivers leave some to the others'."""

import threading
from collections import Counter, defaultdict

from shared.deliveries import Taken

#: What waits for one key; any more is given out again after its hold.
MOST_WAITING = 1000


class Turns:
    """What is being sent for each API key, and what waits until one of that key's is done."""

    def __init__(self, threads: int) -> None:
        #: One key's, of all threads.
        self._most = max(1, threads * 3 // 4)
        self._lock = threading.Lock()
        self._begun: Counter[str] = Counter()
        self._waiting: defaultdict[str, dict[str, Taken]] = defaultdict(dict)

    def begin(self, taken: Taken) -> bool:
        """Tell whether this one may be sent now; otherwise a later `end` returns it."""
        if taken.owner is None:
            return True
        with self._lock:
            if self._begun[taken.owner] < self._most:
                self._begun[taken.owner] += 1
                return True
            waiting = self._waiting[taken.owner]
            if len(waiting) < MOST_WAITING:
                waiting[taken.delivery_id] = taken
            return False

    def end(self, owner: str | None) -> Taken | None:
        """Give one back; return what has waited longest for that."""
        if owner is None:
            return None
        with self._lock:
            self._begun[owner] -= 1
            waiting = self._waiting[owner]
            longest = waiting.pop(next(iter(waiting))) if waiting else None
            if not self._begun[owner]:
                del self._begun[owner]
            if not waiting:
                del self._waiting[owner]
            return longest
