"""A bad model version burns no job: it is found out before it serves, and the others go on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ops.processes import wait_until
from shared.model_registry import ModelRegistry
from tests.chaos import report
from tests.chaos.plan import WORKERS
from tests.chaos.system import System, running_system
from tests.chaos.tiles import small_tile
from tests.factories import write_model
from tests.torture.spoiled import BOMB_BYTES, SPOILED, write_spoiled
from tests.torture.test_images import IS_FULL

#: The slice: one that cannot be read, one that would be obeyed, one that lies, one that is too much.
QUICK = (
    "bits of the weights are flipped",
    "a layer is a function of Python",
    "every weight is not a number",
    "the weights are a bomb",
)
NAMES = tuple(SPOILED) if IS_FULL else QUICK
#: What a bomb may cost beside what TensorFlow takes: far less than it unpacks to.
MOST_BYTES = BOMB_BYTES // 2


@pytest.mark.tensorflow
def test_every_spoiled_version_is_refused_before_it_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the engine's own steps, in a process that lives and stays small; the sound one is taken."""
    folders = [write_spoiled("every weight is zero", tmp_path / "first")]
    folders += [write_spoiled(name, tmp_path / name) for name in NAMES]
    folders.append(write_spoiled(None, tmp_path / "sound"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.load_models", *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, *said, sound = [json.loads(line) for line in done.stdout.splitlines()]
    report.publish(report.Figures("bad models", {item["name"]: item["said"] for item in said}), capsys)
    assert [item["name"] for item in said] == list(NAMES)
    assert {item["said"] for item in said} == {"INVALID_MODEL"}
    assert sound["said"] == "ready"
    assert (sound["peak_kib"] - first["peak_kib"]) * 1024 < MOST_BYTES


@pytest.mark.integration
def test_versions_that_are_damaged_in_the_bucket_burn_no_job(tmp_path: Path) -> None:
    """Their jobs wait, unharmed, until the files are mended; the live version serves all the while."""
    with running_system(tmp_path / "system", WORKERS, milliseconds_a_tile=4) as system:
        sound = damage_some_versions(system, tmp_path)
        waiting = {version: [accept(system, number, version) for number in range(3)] for version in sound}
        served = [accept(system, 100 + number) for number in range(20)]
        assert wait_until(lambda: all(ended(system, job_id) for job_id in served), 60), system.nursery.story()
        assert {job(system, job_id)["status"] for job_id in served} == {"succeeded"}
        jobs = [job(system, job_id) for ids in waiting.values() for job_id in ids]
        assert {item["status"] for item in jobs} <= {"queued", "running"}
        for version, body in sound.items():
            system.store.put(weights_key(version), body, "application/octet-stream")
        all_ids = [job_id for ids in waiting.values() for job_id in ids]
        assert wait_until(lambda: all(ended(system, job_id) for job_id in all_ids), 60), (
            system.nursery.story()
        )
        # None of the tries before counts as one.
        jobs = [job(system, job_id) for job_id in all_ids]
        assert {(item["status"], item["attempt"]) for item in jobs} == {("succeeded", 1)}


def damage_some_versions(system: System, folder: Path) -> dict[str, bytes]:
    """Publish three versions, damage each in its own way; return their sound weights. 1.0.0 is live again."""
    registry = ModelRegistry(system.store, "lung-cnn")
    sound = {}
    for version in ("1.0.1", "1.0.2", "1.0.3"):
        registry.publish(write_model(folder / version, version))
        sound[version] = system.store.get(weights_key(version), 10_000)
    registry.publish(write_model(folder / "1.0.0"))
    system.store.delete(weights_key("1.0.1"))
    system.store.put(weights_key("1.0.2"), sound["1.0.2"][:-1], "application/octet-stream")
    system.store.put(weights_key("1.0.3"), b"W" + sound["1.0.3"][1:], "application/octet-stream")
    return sound


def weights_key(version: str) -> str:
    return f"models/lung-cnn/{version}/weights.keras"


def accept(system: System, number: int, version: str | None = None) -> str:
    """Submit a tile, for a version where one is named; return the id of its job."""
    tile = small_tile(number + 10 * sum(map(ord, version or "")))
    answer = httpx2.post(
        f"{system.url}/predict",
        params={"model_version": version} if version else {},
        content=tile.body,
        headers={"Content-Type": "image/png"},
        timeout=10,
        trust_env=False,
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def job(system: System, job_id: str) -> Any:
    return httpx2.get(f"{system.url}/result/{job_id}", timeout=10, trust_env=False).json()


def ended(system: System, job_id: str) -> bool:
    return job(system, job_id)["status"] not in ("queued", "running")
