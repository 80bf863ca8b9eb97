"""A supervisor of engines without a model, and a worker in memory, whose engine does what an image says."""

import base64
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.errors import EngineCrashed
from shared.schemas import Job, ModelRef
from shared.services import Services, in_memory
from shared.settings import Settings
from tests.work import new_job
from worker.batcher import Batcher
from worker.breaker import CrashBreaker
from worker.leases import LeaseKeeper
from worker.reaper import clean_once
from worker.supervisor import EngineOptions, EngineSupervisor, Outcome
from worker.tasks import JobRunner, RunLimits

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
        command=[sys.executable, "-m", "tests.fake_engine"],
    )


def infer(supervisor: EngineSupervisor, model: ModelRef, images: Sequence[bytes]) -> list[Outcome]:
    """Run one micro-batch of which nobody has stated anything."""
    return supervisor.run(model, images, [None] * len(images), [False] * len(images))


class Engine:
    """Answers with the image's text; "crash" crashes, "bad" is no image, `during` is called in between."""

    def __init__(self) -> None:
        self.runs: list[list[bytes]] = []
        self.mpps: list[float | None] = []
        self.during: Callable[[], object] = lambda: None
        self.progressed_at = 0.0

    def ensure(self, model: ModelRef) -> None:
        """It is always well."""

    def revive(self) -> None:
        """It is always well."""

    def run(
        self,
        model: ModelRef,
        images: Sequence[bytes],
        mpps: Sequence[float | None],
        explained: Sequence[bool],
        meanwhile: Callable[[], object],
    ) -> list[Outcome]:
        """Do what the images say."""
        meanwhile()
        self.runs.append(list(images))
        self.mpps.extend(mpps)
        self.during()
        if b"crash" in images:
            raise EngineCrashed("died")
        return [
            {"error": {"code": "INVALID_IMAGE", "detail": "no image"}}
            if image == b"bad"
            else {
                "result": {"text": image.decode()},
                "timings_ms": {"decode": 1.0},
                **({"heatmap": base64.b64encode(b"heat of " + image).decode()} if is_explained else {}),
            }
            for image, is_explained in zip(images, explained, strict=True)
        ]


class InTurn(Executor):
    """Stands for a pool of threads: each call is made when its answer is asked for."""

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> Iterator[Any]:
        """Return the answers, in order."""
        return map(fn, *iterables)


@dataclass
class World:
    """A worker, its surroundings, and a clock."""

    services: Services
    engine: Engine
    runner: JobRunner
    now_ms: int = 1_700_000_000_000

    def accept(self, image: bytes, mpp: float | None = None, explain: bool = False) -> str:
        """Do what the API does with an upload."""
        new = new_job(image, mpp, explain=explain)
        self.services.objects.put(new.spec.input.key, image, "image/png")
        self.services.jobs.create(new, max_open=100)
        return new.id

    def job(self, job_id: str) -> Job:
        """Read the record."""
        return self.services.jobs.get(job_id)

    def key(self, job_id: str) -> str:
        """Return where the image lies."""
        return self.job(job_id).spec.input.key

    def clean(self) -> int:
        """Do one turn of the cleaner; return how many are gone."""
        return clean_once(self.services.jobs, self.services.objects, InTurn())


@pytest.fixture
def world() -> Iterator[World]:
    """A worker with one lane, whose time is moved by the test."""
    made: list[World] = []
    services = in_memory(Settings(), clock_ms=lambda: made[0].now_ms)
    engine = Engine()
    batcher = Batcher(engine, max_batch_size=4)
    leases = LeaseKeeper(services.jobs, 15, lambda: False)
    runner = JobRunner(
        services.jobs,
        services.objects,
        batcher,
        leases,
        CrashBreaker(),
        RunLimits(lease_seconds=15, run_seconds=300),
        ThreadPoolExecutor(8),
    )
    made.append(World(services, engine, runner))
    batcher.start()
    yield made[0]
    batcher.drain()
    batcher.join(5)
