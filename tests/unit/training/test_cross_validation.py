"""Folds of one recipe, a release on all clusters, and a calibration that never sees its own fold's labels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from shared.manifest import FeatureStatistics
from tests.unit.training import tiny
from worker.engine.familiarity import Familiarity

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def finished(trained_folds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of this file's own, with three trained folds, a release and their calibration."""
    return shutil.copytree(trained_folds, tmp_path_factory.mktemp("finished"), dirs_exist_ok=True)


def fold_names(folder: Path) -> list[Path]:
    return sorted((folder / "cv").glob("fold-*"))


def test_every_tile_is_answered_once_by_weights_that_never_saw_its_cluster(finished: Path) -> None:
    """Each fold's test clusters are exactly those that the two others train on."""
    rows, everything = [], set()
    for folder in fold_names(finished):
        clusters = json.loads((folder / "split.json").read_text())["clusters"]
        assert not set(clusters["train"]) & set(clusters["test"])
        assert clusters["validation"] == clusters["calibration"] == []
        everything |= set(clusters["test"])
        with np.load(folder / "outputs.npz") as outputs:
            rows.extend(outputs["rows"].tolist())
            assert outputs["logits"].shape == (len(outputs["rows"]), 3)
            assert outputs["features"].shape == (len(outputs["rows"]), 8)
    assert sorted(rows) == list(range(54))
    assert len(everything) == 27


def test_the_digest_of_every_fold_is_written_down(finished: Path) -> None:
    """The list of folds and the folds themselves agree."""
    folds = json.loads((finished / "cv/folds.json").read_text())["folds"]
    splits = [json.loads((folder / "split.json").read_text()) for folder in fold_names(finished)]
    assert [fold["digest"] for fold in folds] == [split["digest"] for split in splits]
    assert len({fold["digest"] for fold in folds}) == 3


def test_the_release_trains_on_every_cluster(finished: Path) -> None:
    """It is the same recipe, and nothing is left to test it on."""
    split = json.loads((finished / "cv/release/split.json").read_text())
    assert split["counts"] == {"train": 54, "validation": 0, "calibration": 0, "test": 0}
    assert (finished / "cv/release/network.keras").is_file()


def test_finished_folds_are_not_trained_again(
    data: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command goes on where it stopped, without its options."""
    before = (finished / "cv/fold-1/network.keras").stat().st_mtime_ns
    assert tiny.command("train", data, finished / "cv", "--release") == 0
    text = capsys.readouterr().out
    assert text.count("finished before") == 4
    assert (finished / "cv/fold-1/network.keras").stat().st_mtime_ns == before


def test_a_lost_fold_is_trained_again_to_the_same_weights(data: Path, finished: Path, tmp_path: Path) -> None:
    """A fold owes nothing to the folds before it in the same process."""
    shutil.copytree(finished / "cv", tmp_path / "cv")
    shutil.rmtree(tmp_path / "cv/fold-2")
    assert tiny.command("train", data, tmp_path / "cv") == 0
    expected, received = (np.load(folder / "cv/fold-2/outputs.npz") for folder in (finished, tmp_path))
    with expected, received:
        np.testing.assert_allclose(received["logits"], expected["logits"], atol=1e-4)


def test_folds_and_single_runs_do_not_share_a_folder(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Either way round, the folder says what it is."""
    shutil.copytree(finished / "cv/fold-1", tmp_path / "cv")
    assert tiny.command("train", data, tmp_path / "cv", "--folds", "3") == 1
    assert "Received a single run" in capsys.readouterr().err


def test_folds_that_are_not_finished_cannot_be_calibrated(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The missing fold is named."""
    shutil.copytree(finished / "cv", tmp_path / "cv")
    (tmp_path / "cv/fold-3/outputs.npz").unlink()
    assert tiny.command("calibrate", data, tmp_path / "cv") == 1
    assert "fold-3" in capsys.readouterr().err


def test_the_calibration_is_that_of_the_answers_out_of_fold(finished: Path) -> None:
    """Temperature and threshold for the release, in the folder of the folds."""
    body = json.loads((finished / "cv/calibration.json").read_text())
    assert 0.1 <= body["temperature"] <= 10
    assert 0.5 <= body["indeterminate_below"] <= 1
    assert len(body["gates"]["colour"]) == 3


def test_every_network_has_feature_statistics_of_its_own_and_one_threshold(finished: Path) -> None:
    """The release has no unseen tiles: its threshold is what the folds' unseen tiles say."""
    folds = [json.loads((folder / "familiarity.json").read_text()) for folder in fold_names(finished)]
    released = json.loads((finished / "cv/calibration.json").read_text())["gates"]["features"]
    assert len({json.dumps(part["projection"]) for part in [*folds, released]}) == 4
    assert {part["distance"] for part in folds} == {released["distance"]}
    distances = []
    for folder, part in zip(fold_names(finished), folds, strict=True):
        with np.load(folder / "outputs.npz") as outputs:
            distances.extend(Familiarity(FeatureStatistics(**part)).distances(outputs["features"]))
    assert len(distances) == 54
    assert released["distance"] == pytest.approx(np.quantile(distances, 0.99), abs=0.01)
