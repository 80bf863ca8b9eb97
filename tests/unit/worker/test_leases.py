"""The thread that keeps leases, beside what may go wrong with the ledger."""

import threading
import time

import pytest

from ops.processes import wait_until
from shared.errors import JobStoreUnavailable
from shared.job_store_memory import MemoryJobStore
from worker.leases import Lease, LeaseKeeper


class Ledger(MemoryJobStore):
    """Renews what is asked, unless the test has an error for it."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)
        self.renewed: list[str] = []
        self.errors: dict[str, Exception] = {}

    def renew(self, job_id: str, token: str, lease_seconds: float) -> bool:
        """Note it."""
        if job_id in self.errors:
            raise self.errors[job_id]
        self.renewed.append(job_id)
        return True


@pytest.mark.parametrize(
    "error", [JobStoreUnavailable("away"), KeyError("a bug"), RuntimeError("can't start")]
)
def test_leases_are_renewed_whatever_went_wrong_before(error: Exception) -> None:
    """A thread that ended would cost the worker every job that is longer than a lease."""
    ledger = Ledger()
    ledger.errors["one"] = error
    keeper = LeaseKeeper(ledger, 0.03, lambda: False)
    keeper.add(Lease("one"))
    keeper.start()
    assert keeper.is_alive
    assert not wait_until(lambda: bool(ledger.renewed), 0.2)
    ledger.errors.clear()
    assert wait_until(lambda: bool(ledger.renewed), 5)
    keeper.stop()
    assert wait_until(lambda: not keeper.is_alive, 5)


def test_a_lease_that_cannot_be_renewed_costs_no_other_its_own() -> None:
    """Each is asked for by itself, whatever the ledger says of another."""
    ledger = Ledger()
    keeper = LeaseKeeper(ledger, 0.03, lambda: False)
    for name in ("a", "b", "c"):
        keeper.add(Lease(name))
    for error in (KeyError("a bug"), JobStoreUnavailable("WRONGTYPE")):
        ledger.errors["b"] = error
        keeper.renew_all()
    assert sorted(ledger.renewed) == ["a", "a", "c", "c"]


def test_a_lease_is_not_renewed_before_it_is_due() -> None:
    """Each renewal is a call of the ledger."""
    ledger = Ledger()
    keeper = LeaseKeeper(ledger, 30, lambda: False)
    keeper.add(Lease("one"))
    keeper.start()
    assert not wait_until(lambda: bool(ledger.renewed), 0.2)
    keeper.stop()


def test_a_renewal_that_waited_in_vain_is_made_again_at_once() -> None:
    """It was due all that time: a ledger that hung for a third of a lease has cost nobody one."""
    ledger, gave_up = Ledger(), threading.Event()

    def hang(*_: object) -> bool:
        time.sleep(0.6)
        del ledger.renew  # type: ignore[method-assign]
        gave_up.set()
        raise JobStoreUnavailable("hung")

    ledger.renew = hang  # type: ignore[method-assign]
    keeper = LeaseKeeper(ledger, 1.8, lambda: False)
    keeper.add(Lease("one"))
    keeper.start()
    assert gave_up.wait(5)
    assert wait_until(lambda: bool(ledger.renewed), 0.3)
    keeper.stop()


def test_a_worker_that_is_stuck_lets_go() -> None:
    """And keeps its leases again as soon as it is not."""
    ledger, is_stuck = Ledger(), threading.Event()
    is_stuck.set()
    keeper = LeaseKeeper(ledger, 0.03, is_stuck.is_set)
    keeper.add(Lease("one"))
    keeper.start()
    assert not wait_until(lambda: bool(ledger.renewed), 0.2)
    is_stuck.clear()
    assert wait_until(lambda: bool(ledger.renewed), 5)
    keeper.stop()
