"""A worker that is to have a graphics card ends in one line where it sees none."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shared.services import in_memory
from shared.settings import Settings
from tests.unit.worker.conftest import MODEL, fake_supervisor
from worker import gpu
from worker.app import start_or_exit
from worker.gpu import NoGpu, check_device
from worker.lifecycle import Worker

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("shown", range(len(gpu.DEVICES)))
def test_any_sign_of_a_driver_will_do(shown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux, a container and WSL2 show different ones; what it is good for is TensorFlow's to say."""
    places = [tmp_path / path.name for path in gpu.DEVICES]
    monkeypatch.setattr(gpu, "DEVICES", places)
    with pytest.raises(NoGpu, match="REQUIRE_GPU"):
        check_device()
    places[shown].touch()
    check_device()


def test_the_program_ends_at_once_with_one_line() -> None:
    """Before it asks for Redis or a model: neither is there in this test."""
    if gpu.has_device():
        pytest.skip("this machine has a graphics card")
    environment = {**os.environ, "REQUIRE_GPU": "true", "REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        [sys.executable, "-m", "worker"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert "worker_cannot_start" in line
    assert "expected an NVIDIA GPU" in line


def test_an_engine_that_sees_no_card_is_said_to_the_worker() -> None:
    """As what it is, and not as a model that is wrong."""
    supervisor = fake_supervisor(timeout_seconds=5)
    supervisor._options = replace(supervisor._options, needs_gpu=True)
    with pytest.raises(NoGpu, match="Expected a GPU"):
        supervisor.ensure(MODEL)
    assert supervisor.pid is None


def test_a_worker_whose_engine_sees_no_card_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait as it does for a model: a card does not come by itself."""
    services = in_memory(Settings())
    monkeypatch.setattr(services.models, "live", lambda: MODEL)
    worker = Worker(Settings(require_gpu=True), services)
    assert worker.supervisor._options.needs_gpu
    worker.supervisor = fake_supervisor(timeout_seconds=5)
    worker.supervisor._options = replace(worker.supervisor._options, needs_gpu=True)
    with pytest.raises(SystemExit) as ended:
        start_or_exit(worker)
    assert ended.value.code == 1
