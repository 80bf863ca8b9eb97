"""What a worker counts of its attempts, and of what their clients were told."""

import time

import pytest

from shared.errors import ObjectStoreUnavailable
from tests.unit.worker.conftest import World
from worker.attempt import Message
from worker.metrics import REGISTRY


@pytest.mark.parametrize(
    ("standing", "counted"),
    [
        ([3, 0, 60, 0, 60_000], 1),
        ([3, 0, 0, 0, 60_000], 0),
        (None, 0),
        ("soon", 0),
        # As an earlier program's.
        ([3, 0, 60, 0], 0),
        (["a", "b", "c", "d", "e"], 0),
    ],
)
def test_how_well_a_forecast_held_is_measured(world: World, standing: object, counted: int) -> None:
    """By a job's first attempt, where its client was told anything: three ahead, one a second, is 3 s."""
    before, early_before = eta_errors("+Inf"), eta_errors("-2.0")
    world.runner.run(world.accept(b"tile"), standing)
    assert eta_errors("+Inf") - before == counted
    assert eta_errors("-2.0") - early_before == counted
    assert eta_errors("-5.0") == 0


def test_a_forecast_that_nobody_made_spoils_no_others_outcome(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write to the queue can put any number there, also one that no division takes."""
    forged, good = world.accept(b"forged"), world.accept(b"good")
    monkeypatch.setattr(world.runner._answered, "_call", lambda: None)
    before = attempts()
    with world.runner._claiming:
        world.runner.take(Message(forged, [1, 0, 10**400, 0, 60_000]))
        world.runner.take(Message(good))
    while len(world.runner._answered._items) < 2:
        time.sleep(0.001)
    world.runner._pool.submit(world.runner._conclude_answered)
    world.runner.stop()
    assert attempts()[0] - before[0] == 2


def test_a_job_that_is_handed_back_says_nothing_of_the_forecast(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not ended."""

    def away(key: str, max_bytes: int) -> bytes:
        raise ObjectStoreUnavailable("away")

    before = eta_errors("+Inf")
    job_id = world.accept(b"tile")
    monkeypatch.setattr(world.services.objects, "get", away)
    world.runner.run(job_id, [3, 0, 60, 0, 60_000])
    assert eta_errors("+Inf") == before


def test_attempts_are_counted_by_what_became_of_them(world: World) -> None:
    """An outcome that came too late is dropped, and what a worker that is shutting down has is released."""
    before = attempts()
    world.runner.run(world.accept(b"tile"))
    world.runner.run(world.accept(b"bad"))
    canceled = world.accept(b"tile")
    world.engine.during = lambda: world.services.jobs.cancel(canceled)
    world.runner.run(canceled)
    late = world.accept(b"tile")
    world.runner.batcher.drain()
    world.runner.run(late)
    assert [now - then for now, then in zip(attempts(), before, strict=True)] == [1, 1, 1, 1]


def attempts() -> list[float]:
    """Return how many attempts there were of each kind."""
    name = "histoqueue_worker_attempts_total"
    kinds = ("succeeded", "failed", "dropped", "released")
    return [REGISTRY.get_sample_value(name, {"outcome": kind}) or 0.0 for kind in kinds]


def eta_errors(at_most: str) -> float:
    """Return how many forecasts were off by so many seconds at the most, as Prometheus counts."""
    name = "histoqueue_worker_eta_error_seconds_bucket"
    return REGISTRY.get_sample_value(name, {"le": at_most}) or 0.0
