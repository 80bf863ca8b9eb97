"""One network is trained on a split that leaks, on purpose and apart from all others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training import tiny
from training.dataset import read_tiles
from training.experiment import SplitPlan
from training.splits import assert_no_leak

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

leaky = pytest.importorskip("training.leaky")


@pytest.fixture(scope="module")
def finished(data: Path, trained_folds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of this file's own with three folds, a release and a leaky run."""
    folder = shutil.copytree(trained_folds, tmp_path_factory.mktemp("leaky"), dirs_exist_ok=True)
    assert tiny.command("train", data, folder / "cv", "--leaky") == 0
    return folder


def evaluate(data: Path, folder: Path) -> tuple[dict, str]:
    """Return metrics and card of a folder of folds."""
    assert tiny.command("evaluate", data, folder / "cv", "--draws", "20", "--foreign", "none") == 0
    body = json.loads((folder / "cv/metrics.json").read_text(encoding="utf-8"))
    return body, (folder / "cv/card.md").read_text(encoding="utf-8")


def test_a_split_by_image_leaks(data: Path) -> None:
    """Every tile has its place, a third of each class is tested, and the check for leaks cries out."""
    tiles = read_tiles(data)
    split = leaky.split_by_image(tiles, SplitPlan(test_folds=3))
    assert sorted([*split.train, *split.test]) == list(range(54))
    assert (
        sorted(tiles[row].class_name for row in split.test)
        == ["lung_aca"] * 6 + ["lung_n"] * 6 + ["lung_scc"] * 6
    )
    with pytest.raises(ValueError, match="in one part"):
        assert_no_leak(tiles, split)


def test_the_card_shows_the_leaky_figure_beside_the_grouped_one(data: Path, finished: Path) -> None:
    """It is computed from the leaky run's own answers, and said to be what it is."""
    body, card = evaluate(data, finished)
    measured = body["leaky"]
    with np.load(finished / "cv/leaky/outputs.npz") as outputs:
        rows, answers = outputs["rows"], outputs["logits"].argmax(axis=1)
    names = [tile.class_name for tile in read_tiles(data)]
    right = np.mean(
        [("lung_n", "lung_aca", "lung_scc")[a] == names[r] for a, r in zip(answers, rows, strict=True)]
    )
    assert measured["figures"]["accuracy"]["value"] == pytest.approx(right, abs=1e-4)
    assert (measured["train_tiles"], measured["test_tiles"]) == (36, 18)
    assert measured["copies_in_training"] > 0.3
    section = card[card.index("## What a leak would make of it") :]
    assert section.index("| accuracy |") < section.index("\n## ", 5)
    assert "| by cluster | by image: leaky |" in section


def test_without_a_leaky_run_the_card_says_so(data: Path, finished: Path, tmp_path: Path) -> None:
    """Nothing is made up, and the way to it is named."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "cv/leaky")
    body, card = evaluate(data, tmp_path)
    assert body["leaky"] is None
    assert "Not measured: `train --leaky`" in card


def test_an_unfinished_leaky_run_goes_on_where_it_stopped(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The card waits for it, and only what is missing is done again."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    expected = (tmp_path / "cv/leaky/outputs.npz").read_bytes()
    for name in ("outputs.npz", "network.keras", "history.json"):
        (tmp_path / "cv/leaky" / name).unlink()
    assert tiny.command("evaluate", data, tmp_path / "cv") == 1
    assert "Run `train --leaky` again" in capsys.readouterr().err
    assert tiny.command("train", data, tmp_path / "cv", "--leaky") == 0
    text = capsys.readouterr().out
    assert text.count("finished before") == 3
    assert "epoch" not in text  # its checkpoint was that of the last epoch
    with np.load(tmp_path / "cv/leaky/outputs.npz") as received:
        (tmp_path / "expected.npz").write_bytes(expected)
        with np.load(tmp_path / "expected.npz") as known:
            np.testing.assert_allclose(received["logits"], known["logits"], atol=1e-5)


def test_its_weights_are_never_published(
    data: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is no run that any later command takes."""
    for name, more in (("calibrate", ()), ("evaluate", ()), ("publish", ("--version", "0.0.9"))):
        assert tiny.command(name, data, finished / "cv/leaky", *more) == 1
        assert "Expected a new run folder" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--leaky", "--release", "--only"])
def test_a_single_run_has_neither_release_nor_leak(
    data: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that does nothing would be believed to have done something."""
    assert tiny.command("train", data, tmp_path / "run", flag) == 1
    assert "Expected --folds N with" in capsys.readouterr().err
