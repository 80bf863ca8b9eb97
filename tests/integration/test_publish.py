"""`python -m training publish --bucket` on a real object store: a worker then fetches what was trained.

Once as a process of its own, as an operator starts it: half of what that takes is TensorFlow's import.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from ops.installation import leave_address
from ops.servers import ObjectServer, free_port
from shared.manifest import MANIFEST_NAME, parse_manifest
from shared.model_registry import ModelRegistry
from shared.object_store import WORKER_PATIENCE
from shared.object_store_s3 import S3ObjectStore
from tests.stack import ROOT
from tests.unit.training import tiny

pytestmark = [
    pytest.mark.integration,
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with drawn tiles in `data` and a run of them; 0.0.1 and 0.0.2 lie in `models`."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "data").mkdir()
    data = tiny.draw_data(folder / "data")
    recipe = tiny.write_recipe(folder, tiny.SINGLE)
    assert tiny.command("train", data, folder / "run", "--config", recipe) == 0
    for step in ("calibrate", "evaluate"):
        assert tiny.command(step, data, folder / "run") == 0
    for version in ("0.0.1", "0.0.2"):
        assert tiny.call(*publication(folder, version, run=True)) == 0
    return folder


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of an empty bucket on the server, which the environment names too."""
    name = f"publish-{uuid4().hex[:12]}"
    assert object_server.is_ready(name)
    monkeypatch.setenv("S3_BUCKET", name)
    return name


def publication(folder: Path, version: str, *more: str, run: bool = False) -> list[str]:
    """Return the command that publishes a version of the run, or takes the one in `models`."""
    places = {"--data": folder / "data", "--cache": folder / "cache", "--models": folder / "models"}
    if run:
        places["--run"] = folder / "run"
    paths = [word for name, path in places.items() for word in (name, str(path))]
    return ["publish", *paths, "--version", version, *more]


def error_line(stderr: str) -> str:
    """Return the one line of ours among what TensorFlow says when it starts."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return line


def registry(server: ObjectServer, bucket: str) -> ModelRegistry:
    """Return the models as another process sees them, with nothing remembered."""
    return ModelRegistry(S3ObjectStore(bucket, server.url, "us-east-1", WORKER_PATIENCE), "lung-cnn")


def test_a_published_version_is_fetched_whole_and_proves_itself(
    evaluated: Path, object_server: ObjectServer, bucket: str, tmp_path: Path
) -> None:
    """Live in the bucket, byte for byte the folder's, and its golden tiles come out as they should."""
    from worker.engine.golden import check_golden  # noqa: PLC0415  # imports TensorFlow
    from worker.engine.predictor import Predictor  # noqa: PLC0415

    done = subprocess.run(
        [sys.executable, "-m", "training", *publication(evaluated, "0.0.3", "--bucket", run=True)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "live in the bucket: lung-cnn 0.0.3"
    models = registry(object_server, bucket)
    folder = models.fetch(models.live(), tmp_path)
    local = evaluated / "models/lung-cnn-0.0.3"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in local.iterdir()
    }
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    assert manifest.gates.features is not None
    check_golden(Predictor(folder / manifest.weights, manifest, threads=1), manifest, folder)


def test_a_second_version_becomes_the_live_one_and_the_first_stays(
    evaluated: Path, object_server: ObjectServer, bucket: str
) -> None:
    """Jobs that were accepted for the first can still be answered by it."""
    for version in ("0.0.1", "0.0.2"):
        assert tiny.call(*publication(evaluated, version, "--bucket")) == 0
    models = registry(object_server, bucket)
    assert models.live().version == "0.0.2"
    assert models.versions() == ["0.0.1", "0.0.2"]
    assert models.reference("0.0.1").sha256 == models.live().sha256  # the same run's weights


def test_a_store_that_is_away_costs_nothing_but_the_upload(
    evaluated: Path,
    object_server: ObjectServer,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that names the way on; that way then works, without the run."""
    with monkeypatch.context() as patch:
        patch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        assert tiny.call(*publication(evaluated, "0.0.4", "--bucket", run=True)) == 1
    assert "`publish --version 0.0.4 --bucket`, without --run, tries again" in error_line(
        capsys.readouterr().err
    )
    assert tiny.call(*publication(evaluated, "0.0.4", "--bucket")) == 0
    assert registry(object_server, bucket).live().version == "0.0.4"


def test_the_servers_of_make_up_are_found(
    evaluated: Path,
    object_server: ObjectServer,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As by every other command beside them, where the environment names none."""
    leave_address(tmp_path, {**object_server.environment(), "S3_BUCKET": bucket})
    for name in (*object_server.environment(), "S3_BUCKET"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert tiny.call(*publication(evaluated, "0.0.1", "--bucket")) == 0
    assert f"using the servers of `make up` in {tmp_path}" in capsys.readouterr().err
    assert registry(object_server, bucket).live().version == "0.0.1"


def test_an_altered_file_never_reaches_the_bucket(
    evaluated: Path,
    object_server: ObjectServer,
    bucket: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Digests are checked before the first byte is sent, so nothing is live."""
    shutil.copytree(evaluated / "models", tmp_path / "models")
    with (tmp_path / "models/lung-cnn-0.0.1/model.keras").open("ab") as weights:
        weights.write(b"x")
    assert tiny.call(*publication(tmp_path, "0.0.1", "--bucket")) == 1
    assert error_line(capsys.readouterr().err).startswith("error: Expected model.keras with")
    assert registry(object_server, bucket).versions() == []
