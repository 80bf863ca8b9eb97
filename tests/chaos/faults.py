"""Faults in an order that a seed decides, one after the other, and how often each was done."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ops.processes import wait_until
from tests.chaos.proxy import Proxy
from tests.chaos.system import System

#: Between two faults, at random.
EVERY_SECONDS = (0.3, 1.5)
#: How long a harm lasts that does not end by itself, at random.
LASTING_SECONDS = (0.5, 4.0)
#: A worker that was told to end has this long, and one that was started to have an engine.
DRAIN_SECONDS = 20.0
START_SECONDS = 60.0

#: One deck of faults; each deck is played whole, in an order of its own.
DECK = {
    "worker killed": 11,
    "engine killed": 11,
    "redis killed": 6,
    "redis paused": 1,
    "redis link paused": 2,
    "redis link cut": 2,
    "redis link refused": 1,
    "redis link half-open": 2,
    "redis link slow": 1,
    "store away": 1,
    "store paused": 1,
    "store link paused": 1,
    "store link cut": 1,
    "store link half-open": 1,
    "engine hung": 1,
    "worker paused": 1,
    "api killed": 2,
    "rolling deploy": 1,
}
#: What the figures that we publish are counted in.
GROUPS = {
    "worker kills": ("worker killed",),
    "engine kills": ("engine killed", "engine hung"),
    "redis kills": ("redis killed",),
    "pauses and cuts": (
        *(
            "redis paused",
            "redis link paused",
            "redis link cut",
            "redis link refused",
            "redis link half-open",
        ),
        *("redis link slow", "store link paused", "store link cut", "store link half-open", "worker paused"),
    ),
    "object-store outages": ("store away", "store paused"),
    "rolling deploys": ("rolling deploy",),
    "api kills": ("api killed",),
}


class Faults:
    """Harms one system until it is told to stop; leaves it unharmed."""

    def __init__(self, system: System, seed: int, outage_seconds: tuple[float, float]) -> None:
        """`outage_seconds`: how long the object store is away, at random between the two."""
        self._system = system
        self._random = random.Random(seed)
        self._outage_seconds = outage_seconds
        self.done: Counter[str] = Counter()
        #: Workers that were told to end and had to be killed.
        self.undrained = 0
        redis, store = system.redis_link, system.store_link
        self._kinds: dict[str, Callable[[], None]] = {
            "worker killed": lambda: self._signal(self._worker(), signal.SIGKILL),
            "engine killed": lambda: system.nursery.signal_below(self._worker(), signal.SIGKILL),
            "engine hung": lambda: system.nursery.signal_below(self._worker(), signal.SIGSTOP),
            "redis killed": lambda: self._signal("redis", signal.SIGKILL),
            "redis paused": lambda: self._pause("redis"),
            "redis link paused": lambda: self._for_a_while(redis, redis.pause),
            "redis link cut": redis.cut,
            "redis link refused": lambda: self._for_a_while(redis, lambda: redis.cut(refuse=True)),
            "redis link half-open": lambda: self._for_a_while(redis, redis.half_open),
            "redis link slow": lambda: self._for_a_while(redis, lambda: redis.delay(0.05)),
            "store away": self._store_away,
            "store paused": lambda: self._pause("store"),
            "store link paused": lambda: self._for_a_while(store, store.pause),
            "store link cut": store.cut,
            "store link half-open": lambda: self._for_a_while(store, store.half_open),
            "worker paused": lambda: self._pause(self._worker()),
            "api killed": self._kill_api,
            "rolling deploy": self._deploy,
        }

    def run(self, until: float) -> None:
        """Do one after the other until the time is over; one that has begun is ended."""
        for name in self._order():
            time.sleep(self._random.uniform(*EVERY_SECONDS))
            if time.monotonic() > until:
                return
            self._kinds[name]()
            self.done[name] += 1

    def grouped(self) -> dict[str, int]:
        """Return how often each sort was done, as it is published."""
        return {group: sum(self.done[name] for name in names) for group, names in GROUPS.items()}

    def _order(self) -> Iterator[str]:
        while True:
            yield from self._random.sample(list(DECK), sum(DECK.values()), counts=list(DECK.values()))

    def _worker(self) -> str:
        return self._random.choice(self._system.workers)

    def _signal(self, name: str, number: int) -> None:
        self._system.nursery.signal(name, number)

    def _kill_api(self) -> None:
        """Its server and the master that would replace it."""
        self._system.nursery.signal_below("api", signal.SIGKILL)
        self._signal("api", signal.SIGKILL)

    def _pause(self, name: str) -> None:
        self._signal(name, signal.SIGSTOP)
        time.sleep(self._random.uniform(*LASTING_SECONDS))
        self._signal(name, signal.SIGCONT)

    def _for_a_while(self, link: Proxy, harm: Callable[[], None]) -> None:
        with _healed_afterwards(link):
            harm()
            time.sleep(self._random.uniform(*LASTING_SECONDS))

    def _store_away(self) -> None:
        self._system.nursery.take_away("store")
        time.sleep(self._random.uniform(*self._outage_seconds))
        self._system.nursery.bring_back("store")

    def _deploy(self) -> None:
        """Replace every worker, the next one when the one before has an engine again."""
        for name in self._system.workers:
            self.undrained += not self._system.nursery.drain(name, DRAIN_SECONDS)
            assert wait_until(lambda name=name: self._system.has_engine(name), START_SECONDS), (  # type: ignore[misc]
                self._system.nursery.story()
            )


@contextmanager
def _healed_afterwards(link: Proxy) -> Iterator[None]:
    try:
        yield
    finally:
        link.heal()
