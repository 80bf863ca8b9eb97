"""What workers say of themselves, held against the Redis side and the one in memory."""

import pytest

from shared.schemas import WorkerStatus
from shared.worker_registry import MemoryWorkerRegistry, RedisWorkerRegistry, WorkerRegistry


@pytest.fixture(params=["memory", "redis"])
def registry(request: pytest.FixtureRequest) -> WorkerRegistry:
    """Each side, empty; the real one with the shipped rights."""
    if request.param == "memory":
        return MemoryWorkerRegistry()
    return RedisWorkerRegistry(request.getfixturevalue("limited_client"))


def status(name: str) -> WorkerStatus:
    """Return what this worker reports."""
    return WorkerStatus(name=name, model_name="lung-cnn", model_version="1.0.0", reported_at_ms=1)


def test_who_has_reported_is_live_until_it_withdraws(registry: WorkerRegistry) -> None:
    """In the order of their names."""
    for name in ("b", "a"):
        registry.report(status(name))
    assert registry.live() == [status("a"), status("b")]
    registry.withdraw("a")
    assert registry.live() == [status("b")]


def test_what_a_worker_refuses_is_told(registry: WorkerRegistry) -> None:
    """With the reason, which is for readiness."""
    refusing = status("a").model_copy(update={"refused": {"1.1.0": "Expected other probabilities."}})
    registry.report(refusing)
    assert registry.live() == [refusing]


def test_the_last_complaint_is_told_and_makes_nobody_live(registry: WorkerRegistry) -> None:
    """One that cannot begin does not consume."""
    assert registry.trouble() is None
    registry.complain("no model")
    registry.complain("no room")
    assert registry.trouble() == "no room"
    assert registry.live() == []
