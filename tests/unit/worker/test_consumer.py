"""How a process of ours ends when Celery has."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from celery import signals

from worker.consumer import consume


@dataclass(frozen=True)
class Ended:
    """A worker that has."""

    exitcode: int | None


class App:
    """Stands for Celery, whose worker ends with this status."""

    def __init__(self, status: int | None) -> None:
        self._status = status
        self.steps: dict[str, set[object]] = {"consumer": set()}

    def worker_main(self, argv: Sequence[str]) -> None:
        """End at once; like Celery's own, it tells nobody how."""
        assert "--pool=threads" in argv
        signals.worker_shutdown.send(sender=Ended(self._status))


@pytest.mark.parametrize("status", [None, 0])
def test_a_worker_that_was_told_to_end_has_ended_well(status: int | None) -> None:
    """Its supervisor leaves it at that."""
    consume(App(status), "worker", 1, "INFO")  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [1, 70])
def test_a_worker_that_an_error_ended_says_so(status: int) -> None:
    """Its supervisor starts another."""
    with pytest.raises(SystemExit) as caught:
        consume(App(status), "worker", 1, "INFO")  # type: ignore[arg-type]
    assert caught.value.code == 1
