"""Training runs on whatever Keras runs on; what answers as the workers do wants TensorFlow, and says so."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training import tiny

ROOT = Path(__file__).parents[3]
#: Makes TensorFlow as good as not installed.
WITHOUT_TENSORFLOW = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
COMMAND = "import sys; from training.__main__ import main; sys.exit(main(sys.argv[1:]))"
#: The same, with Ctrl-C as soon as the first epoch is kept.
INTERRUPTED = """
from training.train import Trainer
save = Trainer._save
def interrupted(*arguments):
    save(*arguments)
    raise KeyboardInterrupt
Trainer._save = interrupted
"""
#: Prints the logits of 70 tiles of noise: a whole batch, and one that is filled up.
ANSWERS = """
import sys, keras, numpy
from training.inference import build_forward
tiles = numpy.random.default_rng(1).integers(0, 256, (70, 32, 32, 3), numpy.uint8)
print(build_forward(keras.models.load_model(sys.argv[1], compile=False))(tiles).tolist())
"""

needs_jax = pytest.mark.skipif(
    find_spec("jax") is None, reason="JAX is not installed: only training can use it"
)


def python(backend: str, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own: Keras chooses its backend once."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_help_needs_no_tensorflow() -> None:
    """Nor any backend that can train."""
    done = python("numpy", WITHOUT_TENSORFLOW + COMMAND, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m training" in done.stdout


@needs_jax
@pytest.mark.parametrize("module", ["training.commands", "training.release_commands"])
def test_the_commands_need_no_tensorflow_to_start(module: str) -> None:
    """Every module that they import, and not only the first of them."""
    if module == "training.release_commands":
        pytest.importorskip("matplotlib")
    done = python("jax", WITHOUT_TENSORFLOW + f"import {module}")
    assert (done.returncode, done.stderr) == (0, "")


@needs_jax
def test_what_must_answer_as_the_workers_do_says_what_it_needs(tmp_path: Path) -> None:
    """In one line: golden answers are TensorFlow's."""
    pytest.importorskip("matplotlib")
    done = python("jax", WITHOUT_TENSORFLOW + COMMAND, "convert", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Expected KERAS_BACKEND=tensorflow")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def by_jax(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two runs of JAX: one without a pause, one that was broken off and resumed."""
    folder = tmp_path_factory.mktemp("jax")
    recipe = tiny.write_recipe(folder, tiny.SINGLE)
    options = ["train", "--data", data, "--cache", folder / "cache", "--config", recipe, "--run"]
    for program, status, *more in (
        (COMMAND, 0, folder / "whole"),
        (INTERRUPTED + COMMAND, 130, folder / "resumed"),
        (COMMAND, 0, folder / "resumed", "--resume"),
    ):
        done = python("jax", WITHOUT_TENSORFLOW + program, *options, *more)
        assert done.returncode == status, done.stderr
    return folder


@needs_jax
def test_jax_goes_on_after_an_epoch_as_if_nothing_had_happened(by_jax: Path) -> None:
    """Weights, their average, the optimiser and the random numbers come from the checkpoint."""
    with (
        np.load(by_jax / "whole/checkpoint.npz") as whole,
        np.load(by_jax / "resumed/checkpoint.npz") as resumed,
    ):
        names = [name for name in whole.files if name != "history"]
        assert len(names) > 50
        for name in names:
            np.testing.assert_allclose(resumed[name], whole[name], atol=1e-5)


@needs_jax
def test_what_jax_trained_answers_alike_with_tensorflow(by_jax: Path) -> None:
    """One folder, whatever reads it; the run says what made it."""
    assert "jax" in json.loads((by_jax / "whole/software.json").read_text())
    pytest.importorskip("tensorflow")
    done = [python(backend, ANSWERS, by_jax / "whole/network.keras") for backend in ("jax", "tensorflow")]
    received, expected = (np.array(json.loads(process.stdout)) for process in done)
    assert received.shape == (70, 3)
    np.testing.assert_allclose(received, expected, atol=1e-4)
