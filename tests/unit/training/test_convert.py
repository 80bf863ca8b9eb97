"""A converted network is proven, digested and listed, or nothing is changed."""

import errno
import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ops.prepare import newest_bundled_model
from shared.manifest import MANIFEST_NAME, parse_manifest
from tests.unit.training import tiny

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled version, as it came."""
    copy = tmp_path / "version"
    shutil.copytree(newest_bundled_model(), copy)
    return copy


def test_one_command_converts_a_published_folder_in_place(folder: Path) -> None:
    """The network is listed with its size and digest; every other fact stays; twice is as good as once."""
    before = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    for _ in range(2):
        assert tiny.call("convert", str(folder)) == 0
        after = parse_manifest((folder / MANIFEST_NAME).read_bytes())
        converted = {after.onnx, after.mnn}
        assert converted == {"model.onnx", "model.mnn"}
        for name in ("model.onnx", "model.mnn"):
            body = (folder / name).read_bytes()
            listed = after.digest_of(name)
            assert (listed.bytes, listed.sha256) == (len(body), hashlib.sha256(body).hexdigest())
        others = {file for file in after.files if file.name not in converted}
        assert others == {file for file in before.files if file.name not in converted}
        unchanged = {"onnx", "mnn", "files"}
        assert after.model_dump(exclude=unchanged) == before.model_dump(exclude=unchanged)
    assert {path.name for path in folder.iterdir()} == {file.name for file in after.files} | {MANIFEST_NAME}


def test_a_network_that_does_not_pass_the_golden_tiles_is_not_added(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is left as it was."""
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    golden = tuple(
        tile.model_copy(update={"probabilities": tile.probabilities[::-1]}) for tile in manifest.golden
    )
    text = manifest.model_copy(update={"golden": golden, "onnx": None, "mnn": None}).model_dump_json()
    (folder / MANIFEST_NAME).write_text(text)
    names = {path.name for path in folder.iterdir()}
    assert tiny.call("convert", str(folder)) == 1
    assert "Expected the converted network to pass the golden tiles" in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / MANIFEST_NAME).read_text() == text


def test_a_network_that_differs_on_noise_is_not_added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden tiles are few; noise reaches what they do not."""
    monkeypatch.setattr("training.convert.MOST_DIFFERENCE", -1.0)
    assert tiny.call("convert", str(folder)) == 1
    assert not list(folder.glob(".unproven*"))


def test_what_mnn_cannot_convert_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the converter's own last words; the folder is left as it was."""

    def damage(network: Any) -> None:
        network.graph.node[0].op_type = "Unheard"

    monkeypatch.setattr("training.convert.fold_stems", damage)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert tiny.call("convert", str(folder)) == 1
    assert "Expected a network that MNN can convert" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("runtime", ["OnnxPredictor", "MnnPredictor"])
def test_a_copy_that_answers_otherwise_is_not_added(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runtime: str
) -> None:
    """Each copy is proven, not one of them alone."""
    from training import convert  # noqa: PLC0415 - imports TensorFlow

    predictor = getattr(convert, runtime)
    answer = predictor.predict
    monkeypatch.setattr(predictor, "predict", lambda self, batch: answer(self, batch[:, ::-1, :, ::-1]))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert tiny.call("convert", str(folder)) == 1
    assert "Expected a converted network that differs by at most" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


class Fixed:
    """A model that answers the same to every image."""

    def __init__(self, logits: list[float], features: list[float]) -> None:
        self._answer = np.array([logits], np.float32), np.array([features], np.float32)

    def predict(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and features for each image."""
        logits, features = (np.repeat(part, len(batch), axis=0) for part in self._answer)
        return logits, features


def test_copies_differ_in_probabilities_and_in_features() -> None:
    """Features as a share of the largest one; probabilities by the temperature that is served."""
    from training.convert import differences  # noqa: PLC0415 - imports TensorFlow

    batch, truth = np.zeros((2, 8, 8, 3), np.uint8), Fixed([1.0, 0.0], [1.0, -4.0])
    assert differences(truth, truth, batch, 1.0) == (0.0, 0.0)
    assert differences(Fixed([1.0, 0.0], [1.5, -4.0]), truth, batch, 1.0) == (0.0, 0.125)
    one, other = (1 / (1 + np.exp(-value / 2)) for value in (1.0, 3.0))
    off, features_off = differences(Fixed([3.0, 0.0], [1.0, -4.0]), truth, batch, 2.0)
    assert (off, features_off) == (pytest.approx(other - one), 0.0)


@pytest.mark.parametrize(
    "copy",
    [
        Fixed([1.0, 0.0, 0.0], [1.0, 2.5]),
        Fixed([1.0, 0.1, 0.0], [1.0, 2.0]),
        Fixed([1.0, np.nan, 0.0], [1.0, 2.0]),
        Fixed([1.0, 0.0, 0.0], [np.nan, 2.0]),
    ],
)
def test_a_difference_of_either_kind_is_one_too_many(folder: Path, copy: Fixed) -> None:
    """A feature moves no class, but flags; what is not a number is no small difference."""
    from training import convert  # noqa: PLC0415 - imports TensorFlow
    from training.errors import TrainingError  # noqa: PLC0415

    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    with pytest.raises(TrainingError, match="differs by at most"):
        convert._prove(copy, Fixed([1.0, 0.0, 0.0], [1.0, 2.0]), manifest, folder)


def test_what_onnx_has_no_word_for_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, whatever the exporter raises."""
    import keras  # noqa: PLC0415 - imports TensorFlow

    def refuse(*_: object, **__: object) -> None:
        raise KeyError("no such operation")

    monkeypatch.setattr(keras.Model, "export", refuse)
    assert tiny.call("convert", str(folder)) == 1
    assert "Expected a network that can be converted: 'no such operation'" in capsys.readouterr().err


def test_a_disk_without_room_for_the_manifest_leaves_the_version_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without its manifest is no version any more."""
    whole = Path.write_text

    def fill_up(path: Path, text: str, **named: str) -> int:
        if path.name != MANIFEST_NAME:
            return whole(path, text, **named)
        path.write_bytes(b"")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(Path, "write_text", fill_up)
    assert tiny.call("convert", str(folder)) == 1
    assert "No space left" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_without_a_version_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line."""
    assert tiny.call("convert", str(tmp_path)) == 1
    assert "Expected manifest.json" in capsys.readouterr().err
