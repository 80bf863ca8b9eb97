"""Whatever is uploaded: it is refused with a code, or answered, and no process dies of it.

    make torture

Through the API's own upload checks, and then through the engine in its process, whatever the API said.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import psutil
import pytest
from werkzeug.test import TestResponse

from api import create_app
from ops.prepare import newest_bundled_model
from shared.errors import EngineFailed
from shared.schemas import ModelRef, is_job_id
from shared.services import in_memory
from shared.settings import Settings
from tests.chaos import report
from tests.chaos.plan import SEED
from tests.factories import png_bytes, write_model
from tests.torture.mutants import mutant
from tests.torture.oddities import ANSWERED, REFUSED, oddities
from worker.supervisor import ENGINE_COMMAND, EngineOptions, EngineSupervisor

IS_FULL = bool(os.environ.get("TORTURE_FULL"))
MUTANTS = int(os.environ.get("TORTURE_MUTANTS", "12000" if IS_FULL else "1500"))
#: The whole goes through the bundled network too; a slice stops before it, which saves importing TensorFlow.
COMMAND = ENGINE_COMMAND if IS_FULL else (sys.executable, "-m", "tests.torture.pipeline_engine")
MODEL = ModelRef(name="lung-cnn", version="1.0.0", sha256="0" * 64)
#: What a bad image may be told, by the API and by the engine.
CODES = {"INVALID_IMAGE", "IMAGE_TOO_LARGE", "UNSUPPORTED_IMAGE_FORMAT"}
#: So many in one micro-batch, and so many between two looks at the memory.
BATCH, SAMPLE = 8, 100
#: By how much the middle of the last third of those looks may be above the middle of the second.
GROWTH_MEBIBYTES = 40.0
MEBIBYTE = 2**20


class Api:
    """Real requests to the real application; services of its own, made anew before they hold much."""

    def __init__(self, folder: Path) -> None:
        self._model = write_model(folder / "model")
        self._sent = 0
        self._renew()

    def submit(self, image: bytes) -> str:
        """Send it; return `accepted` or the code of the refusal, which must be the caller's (4xx)."""
        self._sent += 1
        if self._sent % 500 == 0:
            self._renew()
        return self._told(self._client.post("/predict", data=image, content_type="image/jpeg"))

    def submit_named(self, name: str) -> str:
        """Send a sound image in a form, as a file of this name; return as `submit` does."""
        head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        body = head + png_bytes() + b"\r\n--b--\r\n"
        return self._told(
            self._client.post("/predict", data=body, content_type="multipart/form-data; boundary=b")
        )

    def _told(self, answer: TestResponse) -> str:
        if answer.status_code == 202:
            return "accepted"
        assert 400 <= answer.status_code < 500, (answer.status_code, answer.data)
        return str(answer.get_json()["code"])

    def _renew(self) -> None:
        settings = Settings()
        self.services = in_memory(settings)
        self.services.models.publish(self._model)
        self._client = create_app(self.services, settings).test_client()


@dataclass
class Engine:
    """An engine process, how often it died, and how large it was after so many images."""

    supervisor: EngineSupervisor
    deaths: list[int] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def run(self, number: int, images: list[bytes]) -> list[str]:
        """Return `answered` or a code for each; a death is booked under the number of the first image."""
        try:
            outcomes = self.supervisor.run(MODEL, images, [None] * len(images), [False] * len(images))
        except EngineFailed:
            self.deaths.append(number)
            return ["died"] * len(images)
        if number % SAMPLE < BATCH and self.supervisor.pid:
            rss = psutil.Process(self.supervisor.pid).memory_info().rss
            self.memory.append((number / 1000, rss / MEBIBYTE))
        return ["answered" if "result" in outcome else _code(outcome) for outcome in outcomes]

    def slope(self) -> float:
        """Return by how many MiB it grew in 1,000 images, its first third apart."""
        return linear_regression(*zip(*self._warm(), strict=True)).slope

    def growth(self) -> float:
        """Return how much larger it was in the last third than in the second, in MiB."""
        warm = [size for _, size in self._warm()]
        return median(warm[len(warm) // 2 :]) - median(warm[: len(warm) // 2])

    def _warm(self) -> list[tuple[float, float]]:
        return self.memory[len(self.memory) // 3 :]


def _code(outcome: dict[str, Any]) -> str:
    assert outcome["error"]["detail"]
    return str(outcome["error"]["code"])


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(tmp_path)


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Start an engine over the bundled model's manifest."""
    folder = newest_bundled_model()
    supervisor = EngineSupervisor(
        fetch_model=lambda model: folder,
        options=EngineOptions(
            threads=1,
            max_batch_size=BATCH,
            max_pixels=Settings().max_image_pixels,
            memory_bytes=Settings().engine_memory_bytes,
        ),
        timeout_seconds=60,
        command=COMMAND,
    )
    try:
        supervisor.ensure(MODEL)
        yield Engine(supervisor)
    finally:
        supervisor.stop()


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as started:
        yield started


def test_every_odd_file_is_refused_or_answered_as_it_should_be(
    api: Api, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a code of an image; what the API accepts and the engine refuses ends as a coded failure."""
    told = {}
    for name, (body, expected) in oddities().items():
        accepted, (ended,) = api.submit(body), engine.run(1, [body])
        answered = (accepted, ended) == ("accepted", "answered")
        told[name] = (accepted, ended, expected, answered)
    odd = {name: said for name, said in told.items() if not _is_proper(*said)}
    figures = {
        "odd files": len(told),
        "API": dict(Counter(said[0] for said in told.values())),
        "engine": dict(Counter(said[1] for said in told.values())),
        "engine deaths": len(engine.deaths),
    }
    report.publish(report.Figures("torture by hand", figures), capsys)
    assert not odd
    assert not engine.deaths


def _is_proper(accepted: str, ended: str, expected: str, answered: bool) -> bool:
    return (
        accepted in {"accepted", *CODES}
        and ended in {"answered", *CODES}
        and (answered if expected == ANSWERED else True)
        and (not answered if expected == REFUSED else True)
    )


def test_no_mutant_kills_anything_or_is_answered_without_a_code(
    api: Api, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is a 4xx or a 202, then a code or an answer; the engine lives, and does not grow."""
    refusals, outcomes = Counter[str](), Counter[str]()
    for start in range(0, MUTANTS, BATCH):
        images = [mutant(SEED, number) for number in range(start, min(start + BATCH, MUTANTS))]
        refusals.update(api.submit(image) for image in images)
        outcomes.update(engine.run(start, images))
    figures = {
        "mutants": MUTANTS,
        "API": dict(refusals),
        "engine": dict(outcomes),
        "engine deaths": len(engine.deaths),
        "engine memory, MiB": f"{engine.memory[0][1]:.0f} to {engine.memory[-1][1]:.0f}",
        "slope, MiB per 1,000 images": round(engine.slope(), 2),
    }
    report.publish(report.Figures("torture", figures), capsys)
    assert not engine.deaths, f"seed {SEED}: engine died in the micro-batches from {engine.deaths}"
    assert set(refusals) <= {"accepted", *CODES}
    assert set(outcomes) <= {"answered", *CODES}
    # A fuzzer whose files are all refused, or none, tries little.
    assert refusals["accepted"] > MUTANTS / 10
    assert outcomes["answered"] > MUTANTS / 50
    assert engine.growth() < GROWTH_MEBIBYTES


@pytest.mark.parametrize(
    "name",
    ["a\0b.png", "\0", "", "..", "../../etc/passwd", "C:\\x.png", "a" * 4000, "\u202egnp.exe", "a\r\nX: y"],
)
def test_a_files_name_does_not_matter(api: Api, name: str) -> None:
    """NUL bytes, paths, line ends and vast names are taken and forgotten, or the request is malformed."""
    assert api.submit_named(name) in {"accepted", "INVALID_REQUEST"}
    assert all(is_job_id(key.rpartition("/")[2]) for key in api.services.objects.list_keys("uploads/"))


def test_a_mutant_is_known_by_its_number() -> None:
    """What was found once can be made again from the seed that was printed."""
    assert [mutant(1, number) for number in range(20)] == [mutant(1, number) for number in range(20)]
    assert len({mutant(1, number) for number in range(200)}) > 190
