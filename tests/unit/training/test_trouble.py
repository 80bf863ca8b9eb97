"""Whatever goes wrong ends with one clear line, and training goes on from there to the same weights."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.training import tiny
from training.listing import CLASS_NAMES

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

tensorflow = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
# Two runs are compared here: sums are to be added up in one order, on busy cores, too.
tensorflow.config.experimental.enable_op_determinism()

#: Three steps an epoch, so that one can be broken off.
RECIPE = tiny.SINGLE.replace("batch_size = 8", "batch_size = 4")


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a single run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    recipe = tiny.write_recipe(folder, RECIPE)
    assert tiny.command("train", data, folder / "run", "--config", recipe) == 0
    return folder / "run"


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was said of the trouble: one line, and no trace of a program."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    assert text.endswith("\n")
    return text


def weights(run: Path) -> list[np.ndarray]:
    """Return the weights of a finished run, and every other variable of its last step."""
    network = keras.models.load_model(run / "network.keras", compile=False)
    with np.load(run / "checkpoint.npz") as stored:
        return [*network.get_weights(), *(stored[name] for name in stored.files if name != "history")]


def assert_same_weights(run: Path, expected: Path) -> None:
    """Tell that an interruption left no mark; sums in another order may."""
    for received, known in zip(weights(run), weights(expected), strict=True):
        np.testing.assert_allclose(received, known, atol=1e-5)


def interrupt_at(patch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Press Ctrl-C before a call, the first time that `when` says so of its arguments."""
    whole, pressed = getattr(owner, name), []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        if not pressed and when(*arguments):
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)
        return whole(*arguments, **named)

    patch.setattr(owner, name, interrupted)


def a_step_into_the_second_epoch(callback: Any, step: int) -> bool:
    """Tell whether the network and the random numbers have moved since the checkpoint of the first epoch."""
    return step > 0 and int(callback.model.optimizer.iterations) > step


def test_a_step_keeps_the_order_of_its_reads_and_writes(uninterrupted: Path) -> None:
    """With TensorFlow's dependency optimizer, some runs end with other weights than the same run before."""
    assert (uninterrupted / "network.keras").exists()
    assert tensorflow.config.optimizer.get_experimental_options()["dependency_optimization"] is False


def test_ctrl_c_in_the_middle_of_an_epoch_costs_that_epoch_and_nothing_else(
    data: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, exit status 130, and in the end the weights of the run that nobody disturbed."""
    recipe = tiny.write_recipe(tmp_path, RECIPE)
    with monkeypatch.context() as patch:
        interrupt_at(patch, keras.callbacks.Callback, "on_train_batch_begin", a_step_into_the_second_epoch)
        assert tiny.command("train", data, tmp_path / "run", "--config", recipe) == 130
    assert error_line(capsys) == "interrupted: `train --resume` goes on after the last finished epoch\n"
    assert tiny.command("train", data, tmp_path / "run", "--resume") == 0
    assert re.findall(r"epoch (\d)/3", capsys.readouterr().out) == ["2", "3"]
    assert_same_weights(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("place", ["before the answers", "between folds", "in an epoch of the second fold"])
def test_ctrl_c_in_a_cross_validation_costs_at_most_an_epoch(
    data: Path,
    trained_folds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
) -> None:
    """Finished folds stay, and every fold ends as if nothing had happened."""
    from training import cross_validation  # noqa: PLC0415  # imports TensorFlow

    recipe, folder = tiny.write_recipe(tmp_path, tiny.FOLDS), tmp_path / "cv"
    with monkeypatch.context() as patch:
        if place == "before the answers":
            interrupt_at(patch, cross_validation, "write_outputs", lambda run: True)
        elif place == "between folds":
            interrupt_at(
                patch, cross_validation, "Trainer", lambda *_: (folder / "fold-1/outputs.npz").exists()
            )
        else:
            in_second = lambda _, step: step and (folder / "fold-2").exists()  # noqa: E731
            interrupt_at(patch, keras.callbacks.Callback, "on_train_batch_begin", in_second)
        assert tiny.command("train", data, folder, "--config", recipe, "--folds", "3") == 130
    assert "goes on after the last finished epoch" in error_line(capsys)
    before = (folder / "fold-1/network.keras").stat().st_mtime_ns
    assert tiny.command("train", data, folder, "--resume") == 0
    assert "fold 1 of 3: finished before" in capsys.readouterr().out
    assert (folder / "fold-1/network.keras").stat().st_mtime_ns == before
    for name in ("fold-1", "fold-2", "fold-3"):
        assert_same_weights(folder / name, trained_folds / "cv" / name)
        received, expected = (np.load(root / name / "outputs.npz") for root in (folder, trained_folds / "cv"))
        with received, expected:
            np.testing.assert_allclose(received["logits"], expected["logits"], atol=1e-4)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_full_disk_costs_the_epoch_that_could_not_be_kept(
    data: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The checkpoint before is whole, half of one is taken away, and resuming ends with the same weights."""
    from training.train import Trainer  # noqa: PLC0415  # imports TensorFlow

    run, recipe = tmp_path / "run", tiny.write_recipe(tmp_path, RECIPE)
    whole = Trainer._save

    def fill_up_after_the_first(trainer: Trainer, folder: Path) -> None:
        if len(trainer._history) == 2:
            (folder / "checkpoint.part.npz").symlink_to("/dev/full")
        whole(trainer, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", fill_up_after_the_first)
        assert tiny.command("train", data, run, "--config", recipe) == 1
    line = error_line(capsys)
    assert line.startswith(
        f"error: Expected room for a checkpoint in {run}. Received: [Errno 28] No space left"
    )
    assert "train --resume" in line
    assert not list(run.glob("*.part.npz"))
    assert tiny.command("train", data, run, "--resume") == 0
    assert re.findall(r"epoch (\d)/3", capsys.readouterr().out) == ["2", "3"]
    assert_same_weights(run, uninterrupted)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_full_disk_leaves_no_run_that_looks_finished(tmp_path: Path) -> None:
    """The file that says so is there whole, or not at all."""
    from training.checkpoint import write_whole  # noqa: PLC0415  # beside the others that need TensorFlow
    from training.errors import TrainingError  # noqa: PLC0415

    path = tmp_path / "history.json"
    (tmp_path / f"history.json.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="No space left"):
        write_whole(path, "[1]" * 10_000)
    assert list(tmp_path.iterdir()) == []
    write_whole(path, "[1]")
    assert path.read_text() == "[1]"


def test_a_run_is_trained_by_one_process(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second one is told so at once: each would take away what the other has half written."""
    recipe, told = tiny.write_recipe(tmp_path, RECIPE), []

    def start_another(*_: object) -> bool:
        if not told:
            told.append("")
            with monkeypatch.context() as patch:
                patch.setattr(keras.callbacks.Callback, "on_train_batch_begin", lambda *_, **__: None)
                assert tiny.command("train", data, tmp_path / "run", "--resume") == 1
            told[0] = error_line(capsys)
        return False

    interrupt_at(monkeypatch, keras.callbacks.Callback, "on_train_batch_begin", start_another)
    assert tiny.command("train", data, tmp_path / "run", "--config", recipe) == 0
    assert re.search(r"Expected .*run for this process alone", told[0])


def test_what_a_run_is_is_written_once(tmp_path: Path) -> None:
    """A later step, on a disk without room or in a folder that may only be read, finds it and leaves it."""
    from training.run_folder import keep  # noqa: PLC0415  # beside the others that need TensorFlow

    path = tmp_path / "folds.json"
    keep(path, "[1]")
    before = path.stat()
    keep(path, "[1]")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_full_disk_leaves_no_run_that_is_half_described(tmp_path: Path) -> None:
    """Half a description would be taken for another experiment's ever after."""
    from training.errors import TrainingError  # noqa: PLC0415  # beside the others that need TensorFlow
    from training.run_folder import keep  # noqa: PLC0415

    (tmp_path / f"split.json.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="No space left"):
        keep(tmp_path / "split.json", "[1]" * 10_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_full_disk_leaves_the_calibration_and_the_figures_that_were_there(
    data: Path, trained_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of one would end whatever reads it in a traceback."""
    run = shutil.copytree(trained_folds / "cv", tmp_path / "cv")
    before = (run / "calibration.json").read_bytes()
    (run / f"calibration.json.{os.getpid()}.part").symlink_to("/dev/full")
    assert tiny.command("calibrate", data, run) == 1
    assert "No space left" in error_line(capsys)
    assert (run / "calibration.json").read_bytes() == before
    (run / f"metrics.json.{os.getpid()}.part").symlink_to("/dev/full")
    assert tiny.command("evaluate", data, run, "--foreign", "none", "--draws", "2") == 1
    assert "No space left" in error_line(capsys)
    assert not (run / "metrics.json").exists()


def test_a_run_whose_experiment_cannot_be_read_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of something else, or of a later version of this program."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/experiment.json").write_text('{"train": {"epoch": 3}}', encoding="utf-8")
    assert tiny.command("calibrate", data, tmp_path / "run") == 1
    assert "Expected a run folder. Received" in capsys.readouterr().err


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """Return class folders without a list, which a test may damage."""
    for name in CLASS_NAMES:
        shutil.copytree(data / name, tmp_path / "own" / name)
    return tmp_path / "own"


def damage_one(folder: Path) -> None:
    (folder / "lung_aca/3-1.png").write_bytes(b"no image")


def cut_one_short(folder: Path) -> None:
    path = folder / "lung_scc/0-0.png"
    path.write_bytes(path.read_bytes()[:200])


def empty(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.unlink()


def drop_a_class(folder: Path) -> None:
    shutil.rmtree(folder / "lung_scc")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage_one, r"Expected a readable image at lung_aca/3-1\.png\..*--skip-unreadable"),
        (cut_one_short, r"Expected a readable image at lung_scc/0-0\.png\..*--skip-unreadable"),
        (empty, r"Expected images in .*own\. Received a folder without any"),
        (drop_a_class, r"Expected tiles of exactly lung_n, lung_aca, lung_scc\. Received: .*'lung_aca': 18"),
        (shutil.rmtree, r"Received: no such folder"),
    ],
)
def test_a_folder_that_cannot_be_used_ends_with_one_line_and_no_zero(
    copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], object],
    reason: str,
) -> None:
    """A corrupt file among many, one cut short, no image, a class missing, no folder: each is named."""
    harm(copy)
    assert tiny.call("prepare", "--data", str(copy), "--cache", str(tmp_path / "cache")) == 1
    line = error_line(capsys)
    assert line.startswith("error: ")
    assert re.search(reason, line), line


def test_training_on_what_was_never_prepared_names_the_way(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a list of copies a split would leak."""
    assert tiny.command("train", copy, tmp_path / "run") == 1
    assert "run `prepare` on this folder first" in error_line(capsys)


@pytest.mark.parametrize("more", [(), ("--folds", "3")])
def test_one_image_a_class_is_too_few_to_train_on(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    """They can be prepared, and are refused before anything is trained."""
    for path in copy.rglob("*.png"):
        if path.name != "0-0.png":
            path.unlink()
    assert tiny.call("prepare", "--data", str(copy), "--cache", str(tmp_path / "cache")) == 0
    assert tiny.command("train", copy, tmp_path / "run", *more) == 1
    assert "clusters of each class" in error_line(capsys)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_outside_of_training_does_not_speak_of_epochs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes on is another command's affair."""
    from training import commands  # noqa: PLC0415  # imports TensorFlow

    interrupt_at(monkeypatch, commands, "prepare_folder", lambda *_: True)
    assert tiny.call("prepare", "--data", str(data), "--cache", str(tmp_path)) == 130
    assert error_line(capsys) == "interrupted: `prepare` begins again\n"
