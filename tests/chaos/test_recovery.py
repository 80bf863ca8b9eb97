"""One fault at a time under a steady load: how long until the work goes on."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.processes import wait_until
from shared import keys
from tests.chaos import report
from tests.chaos.load import Load
from tests.chaos.plan import CLIENTS, IS_FULL, WORKERS
from tests.chaos.system import LEASE_SECONDS, System, running_system
from tests.chaos.tiles import small_tiles

pytestmark = pytest.mark.integration

#: Faults of each kind.
ROUNDS = 20 if IS_FULL else 1
#: What has not recovered by then is a failure, whatever the machine does beside.
LIMIT_SECONDS = 60.0
#: A worker's threads: so many outcomes may still come from before the fault.
IN_FLIGHT = 16
#: So slow that a worker which is killed has something to lose.
MILLISECONDS_A_TILE = 50.0
#: Between two submissions of one client: three quarters of what the workers can do at the most. A backlog
#: that grows with the speed of the machine would be measured in place of the recovery.
PAUSE_SECONDS = CLIENTS * MILLISECONDS_A_TILE / 1000 / WORKERS / 0.75


class Recovery:
    """Faults on one system under load, and the seconds that each took to be made good."""

    def __init__(self, system: System, load: Load) -> None:
        self._system = system
        self._load = load
        self._harms: dict[str, Callable[[str], float]] = {
            "jobs of a killed worker": lambda worker: self._until_open_jobs_end(
                lambda: system.nursery.signal(worker, signal.SIGKILL)
            ),
            "jobs of a killed engine": lambda worker: self._until_open_jobs_end(
                lambda: system.nursery.signal_below(worker, signal.SIGKILL)
            ),
            "every worker after Redis was killed": lambda worker: self._until_every_worker_works(
                lambda: system.nursery.signal("redis", signal.SIGKILL)
            ),
        }
        self.seconds: dict[str, list[float]] = {name: [] for name in self._harms}

    def run(self) -> None:
        """Do each harm in turn, and each again when the load flows as before."""
        for number in range(ROUNDS):
            for name, harm in self._harms.items():
                self._settle()
                self.seconds[name].append(harm(self._system.workers[number % WORKERS]))

    def _until_open_jobs_end(self, harm: Callable[[], None]) -> float:
        """Return when the last job that was open at the moment of the fault had ended."""
        # Otherwise nobody has anything in hand, and there is nothing to recover.
        assert wait_until(lambda: self._system.redis.zcard(keys.LEASED) >= 2, LIMIT_SECONDS, 0.005)
        hit, harmed_at = self._system.open_jobs(), time.time()
        harm()
        # One that the client was not told of yet ends all the same, and is asked for later.
        assert wait_until(lambda: not hit & self._system.open_jobs(), LIMIT_SECONDS), (
            self._system.nursery.story()
        )
        return time.time() - harmed_at

    def _until_every_worker_works(self, harm: Callable[[], None]) -> float:
        """Return when each worker had finished more jobs than it could have had in its hands."""
        logs = [self._system.log(name) for name in self._system.workers]
        starts = [log.stat().st_size for log in logs]
        harmed_at = time.monotonic()
        harm()

        def all_work() -> bool:
            written = [log.read_bytes()[start:] for log, start in zip(logs, starts, strict=True)]
            return all(text.count(b'"job_succeeded"') > IN_FLIGHT for text in written)

        assert wait_until(all_work, LIMIT_SECONDS), self._system.nursery.story()
        return time.monotonic() - harmed_at

    def _settle(self) -> None:
        ended = len(self._load.history.ended)
        assert wait_until(lambda: len(self._load.history.ended) > ended + 50, LIMIT_SECONDS)


def test_work_goes_on_soon_after_each_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dead worker's jobs end elsewhere; after Redis has come back, every worker consumes again."""
    with running_system(tmp_path, WORKERS, MILLISECONDS_A_TILE) as system:
        load = Load(system, small_tiles(one_poison_in=10**9), pause_seconds=PAUSE_SECONDS)
        recovery = Recovery(system, load)
        load.run(CLIENTS, recovery.run)
        figures = {
            "lease, s": LEASE_SECONDS,
            "rounds of each": ROUNDS,
            **{f"{name}, s": report.spread(seconds) for name, seconds in recovery.seconds.items()},
            **report.outcomes(load.history, system, set()),
        }
        report.publish(report.Figures("recovery", figures), capsys)
        assert not load.history.lost(), system.nursery.story()
        assert not load.history.wrong()
