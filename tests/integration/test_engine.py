"""The real engine process behind its supervisor: what is said of an image goes over the pipe with it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.prepare import newest_bundled_model
from shared.manifest import MANIFEST_NAME, parse_manifest
from shared.schemas import ModelRef
from tests.stack import png
from worker.supervisor import EngineOptions, EngineSupervisor

pytestmark = [pytest.mark.integration, pytest.mark.tensorflow]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[EngineSupervisor]:
    """Starts real engines on the bundled weights, whose manifest states a range of scales here."""
    folder = shutil.copytree(newest_bundled_model(), tmp_path / "model")
    body = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    body["gates"]["mpp"] = [0.35, 0.6]
    (folder / MANIFEST_NAME).write_text(json.dumps(body), encoding="utf-8")
    options = EngineOptions(threads=1, max_batch_size=4, max_pixels=10**7, memory_bytes=4 * 10**9)
    made = EngineSupervisor(lambda model: folder, options, timeout_seconds=60)
    yield made
    made.stop()


def test_each_image_is_judged_by_its_own_scale(supervisor: EngineSupervisor) -> None:
    """Three tiles in one micro-batch: one that suits, one that does not, one of which nothing is known."""
    manifest = parse_manifest((newest_bundled_model() / MANIFEST_NAME).read_bytes())
    weights = manifest.digest_of(manifest.weights).sha256
    model = ModelRef(name=manifest.name, version=manifest.version, sha256=weights)
    images = [png(1), png(2), png(3)]
    stated = supervisor.run(model, images, [0.5, 2.0, None], [False] * 3)
    flagged = ["scale_mismatch" in outcome["result"]["reasons"] for outcome in stated]
    assert flagged == [False, True, False]
    for outcome in supervisor.run(model, images, [None] * 3, [False] * 3):
        assert "scale_mismatch" not in outcome["result"]["reasons"]
