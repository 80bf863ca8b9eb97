"""A supervisor over an engine without a model."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.schemas import ModelRef
from tests import fake_engine
from worker.supervisor import EngineOptions, EngineSupervisor

MODEL = ModelRef(name="lung-cnn", version="1.0.0", sha256="0" * 64)


@pytest.fixture
def supervisor() -> Iterator[EngineSupervisor]:
    """Starts fake engines; a version of 6.6.6 is broken."""
    made = fake_supervisor(timeout_seconds=1.0)
    yield made
    made.stop()


def fake_supervisor(timeout_seconds: float) -> EngineSupervisor:
    """Return a supervisor of fake engines."""
    return EngineSupervisor(
        fetch_model=lambda model: Path("broken" if model.version == "6.6.6" else "good"),
        options=EngineOptions(threads=1, max_batch_size=4, max_pixels=10_000, memory_bytes=100_000_000),
        timeout_seconds=timeout_seconds,
        command=[sys.executable, str(Path(fake_engine.__file__))],
    )
