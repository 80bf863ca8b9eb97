"""A whole run on drawn tiles: train, calibrate, evaluate, publish, load."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from shared.manifest import MANIFEST_NAME, parse_manifest
from tests.unit.training import tiny

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained, calibrated, evaluated run and its published version."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = tiny.write_recipe(folder, tiny.SINGLE)
    assert tiny.command("train", data, folder / "run", "--config", recipe) == 0
    for step in ("calibrate", "evaluate"):
        assert tiny.command(step, data, folder / "run") == 0
    assert (
        tiny.command(
            "publish", data, folder / "run", "--version", "0.0.1", "--models", str(folder / "models")
        )
        == 0
    )
    return folder


def test_a_published_version_is_complete_and_true(finished: Path) -> None:
    """Every listed file is there with its size and digest, and nothing else but the manifest."""
    folder = finished / "models/lung-cnn-0.0.1"
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    assert {file.name for file in manifest.files} | {MANIFEST_NAME} == {
        path.name for path in folder.iterdir()
    }
    for file in manifest.files:
        data = (folder / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [info.name for info in manifest.classes] == ["lung_n", "lung_aca", "lung_scc"]
    assert [info.malignant for info in manifest.classes] == [False, True, True]


def test_a_published_version_states_its_figures_and_terms(finished: Path) -> None:
    """Measured figures, where they come from, both citations, and what it is not for."""
    folder = finished / "models/lung-cnn-0.0.1"
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    assert manifest.metrics["test_clusters"] == 9
    assert 0 <= float(manifest.metrics["test_accuracy"]) <= 1
    split, history, software = (
        json.loads((finished / "run" / name).read_text(encoding="utf-8"))
        for name in ("split.json", "history.json", "software.json")
    )
    facts = dict(manifest.training)
    assert facts.pop("dataset")
    assert facts == {
        "dataset_sha256": split["tiles"],
        "split_seed": 1,
        "seed": 1,
        "split_sha256": split["digest"],
        "test_fold": "1 of 3",
        "train_clusters": len(split["clusters"]["train"]),
        "epochs": 3,
        "seconds": round(sum(epoch["seconds"] for epoch in history)),
        "software": ", ".join(f"{name} {number}" for name, number in software.items()),
        "keras": software["keras"],
    }
    notice = (folder / "NOTICE").read_text(encoding="utf-8")
    assert "not for diagnostic use" in notice
    assert "whoever made this version has not said" in notice
    assert "LC25000" not in notice + str(manifest.training)


def test_a_published_version_loads_in_the_worker_and_passes_its_golden_tiles(finished: Path) -> None:
    """What training wrote, serving accepts."""
    from worker.engine.golden import check_golden  # noqa: PLC0415  # after the skip above
    from worker.engine.predictor import Predictor  # noqa: PLC0415  # imports TensorFlow

    folder = finished / "models/lung-cnn-0.0.1"
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    check_golden(Predictor(folder / manifest.weights, manifest, threads=1), manifest, folder)


def test_a_version_never_changes(data: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Publishing over an existing version is refused."""
    models = str(finished / "models")
    assert tiny.command("publish", data, finished / "run", "--version", "0.0.1", "--models", models) == 1
    assert "a version never changes" in capsys.readouterr().err


def test_a_run_folder_belongs_to_one_experiment(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another configuration in the same folder would mix two runs."""
    other = tiny.write_recipe(tmp_path, tiny.SINGLE + "seed = 2\n")
    assert tiny.command("train", data, finished / "run", "--config", other) == 1
    assert "Expected a new run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "missing"),
    [("calibrate", "Run `train"), ("evaluate", "Run `calibrate"), ("publish", "Run `evaluate")],
)
def test_steps_out_of_order_say_what_to_run_first(
    data: Path, finished: Path, tmp_path: Path, step: str, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder without the step before ends with one clear line."""
    (tmp_path / "run").mkdir()
    shutil.copyfile(finished / "run/experiment.json", tmp_path / "run/experiment.json")
    more = ["--version", "0.0.2", "--models", str(tmp_path)] if step == "publish" else []
    assert tiny.command(step, data, tmp_path / "run", *more) == 1
    assert missing in capsys.readouterr().err


def test_publishing_needs_a_run_or_a_version_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a run nor a bucket to take it to."""
    assert tiny.call("publish", "--version", "0.0.3", "--models", str(tmp_path)) == 1
    assert "Expected --run FOLDER, or --bucket" in capsys.readouterr().err
    assert tiny.call("publish", "--version", "0.0.3", "--models", str(tmp_path), "--bucket") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: Expected manifest.json in the version's folder")


def test_prepare_counts_what_it_found(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tiles and clusters."""
    assert tiny.call("prepare", "--data", str(data), "--cache", str(tmp_path)) == 0
    assert "54 tiles of 27 clusters are ready" in capsys.readouterr().out
