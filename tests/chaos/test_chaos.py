"""Whatever dies, every job that was accepted ends once, with its own result.

    make chaos MINUTES=5 SEED=7

The seed is printed and decides which faults come in which order. No test here is run twice to make it pass.
"""

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.client import Client, History, image
from tests.chaos.system import System, running_system
from tests.fake_engine import CRASH, HANG

pytestmark = pytest.mark.integration

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
SEED = int(os.environ.get("CHAOS_SEED", str(random.SystemRandom().randrange(10**6))))
WORKERS = 2
CLIENTS = 4
#: Between two faults, at random.
EVERY_SECONDS = (0.5, 2.0)
#: One image in so many ends every engine that runs it.
ONE_POISON_IN = 250
#: From the last fault to the end of the last job.
DRAIN_SECONDS = 90.0


class Faults:
    """One fault after the other, drawn from the seed."""

    def __init__(self, system: System, seed: int) -> None:
        self._system = system
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._kinds: dict[str, tuple[int, Callable[[], None]]] = {
            "worker killed": (5, lambda: self._hit(self._worker(), signal.SIGKILL)),
            "worker told to end": (2, lambda: self._hit(self._worker(), signal.SIGTERM)),
            "engine killed": (5, lambda: system.nursery.signal_below(self._worker(), signal.SIGKILL)),
            "engine hung": (1, lambda: system.nursery.signal_below(self._worker(), signal.SIGSTOP)),
            "redis killed": (3, lambda: self._hit("redis", signal.SIGKILL)),
            "redis paused": (2, lambda: self._pause("redis")),
            "store killed": (1, lambda: self._hit("store", signal.SIGKILL)),
            "store paused": (1, lambda: self._pause("store")),
            "worker paused": (1, lambda: self._pause(self._worker())),
            "api killed": (1, lambda: self._hit("api", signal.SIGKILL)),
        }

    def run(self, until: float) -> None:
        """Do one after the other until the time is over."""
        weights = [weight for weight, _ in self._kinds.values()]
        while time.monotonic() < until:
            time.sleep(self._random.uniform(*EVERY_SECONDS))
            (name,) = self._random.choices(list(self._kinds), weights)
            self.done[name] += 1
            self._kinds[name][1]()

    def _worker(self) -> str:
        return f"worker-{self._random.randrange(WORKERS)}"

    def _hit(self, name: str, number: int) -> None:
        self._system.nursery.signal(name, number)

    def _pause(self, name: str) -> None:
        self._hit(name, signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 4))
        self._hit(name, signal.SIGCONT)


def submit_until(system: System, history: History, numbers: "itertools.count[int]", until: float) -> None:
    """Submit one image after the other."""
    with Client(system, history) as client:
        while time.monotonic() < until:
            number = next(numbers)
            poison = number % ONE_POISON_IN == ONE_POISON_IN // 2
            marker = (CRASH, HANG)[number // ONE_POISON_IN % 2] if poison else b""
            client.submit(image(number, marker), poison, until + DRAIN_SECONDS)


def drain(system: System, history: History, until: float) -> None:
    """Wait for every accepted job, several at a time."""
    waiting = iter(list(history.accepted))
    lock = threading.Lock()

    def finish() -> None:
        with Client(system, history) as client:
            while True:
                with lock:
                    job_id = next(waiting, None)
                if job_id is None:
                    return
                client.finish(job_id, until)

    in_parallel([finish] * 8)


def in_parallel(works: list[Callable[[], None]]) -> None:
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


def test_nothing_is_lost_whatever_dies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Accepted = ended, each with its own image's result; poison fails as poison, and only poison."""
    history, numbers = History(), itertools.count()
    with running_system(tmp_path, WORKERS, milliseconds_a_tile=4) as system:
        until = time.monotonic() + SECONDS
        faults = Faults(system, SEED)
        submit = [lambda: submit_until(system, history, numbers, until)] * CLIENTS
        in_parallel([*submit, lambda: faults.run(until)])
        stopped_at = time.monotonic()
        drain(system, history, stopped_at + DRAIN_SECONDS)
        drained_seconds = time.monotonic() - stopped_at
        with capsys.disabled():
            print(
                f"\nseed {SEED}: {len(history.accepted)} accepted, {len(history.ended)} ended, "
                f"{len(history.lost())} lost, {len(history.wrong())} wrong, {len(history.poison)} poison, "
                f"{history.repeated()} run more than once, drained in {drained_seconds:.1f} s, "
                f"slowest answer {history.slowest_seconds:.1f} s, refused {history.refused}, "
                f"faults {dict(faults.done)}"
            )
        assert not history.lost(), system.nursery.story()
        assert not history.wrong(), history.wrong()[:3]
        assert len(history.accepted) > 20 * SECONDS / CLIENTS
