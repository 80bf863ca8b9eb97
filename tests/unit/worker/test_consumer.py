"""How a process of ours ends when Celery has, and what it does with what is no message."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from celery import signals
from kombu.transport.virtual import QoS

from worker.consumer import OurWays, consume


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


@pytest.mark.parametrize("tags", ["abcd", "aaaa", "aabb"])
def test_what_nobody_answers_for_takes_nobodys_place(tags: str) -> None:
    """It counts as one that is under way before Celery stumbles over it, whatever in it that is."""
    waiting = iter(tags)

    def read() -> None:
        message = SimpleNamespace(delivery_tag=next(waiting))
        channel.qos.append(message, message.delivery_tag)
        raise TypeError("argument of type 'int' is not iterable")

    channel: Any = SimpleNamespace(handlers={"BRPOP": read}, do_restore=True)
    channel.qos = QoS(channel, prefetch_count=2)
    channel.qos.append(SimpleNamespace(delivery_tag="under way"), "under way")
    OurWays.start(SimpleNamespace(), SimpleNamespace(task_consumer=SimpleNamespace(channel=channel)))  # type: ignore[arg-type]
    for _ in tags:
        assert channel.handlers["BRPOP"]()
        assert channel.qos.can_consume_max_estimate() == 1
