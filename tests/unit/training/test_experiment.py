"""An experiment is read whole from its file, or refused with the reason."""

from pathlib import Path

import pytest

from training.errors import TrainingError
from training.experiment import Experiment, read_experiment

CONFIGS = sorted((Path(__file__).parents[3] / "training/configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_valid(path: Path) -> None:
    """No experiment is kept that could not be run."""
    assert isinstance(read_experiment(path), Experiment)


def test_what_a_file_leaves_out_has_its_default(tmp_path: Path) -> None:
    """Three lines are a whole experiment."""
    path = tmp_path / "short.toml"
    path.write_text("[train]\nepochs = 3\n", encoding="utf-8")
    experiment = read_experiment(path)
    assert experiment.train.epochs == 3
    assert experiment.network == Experiment().network


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[train]\nepoch = 3\n", r"At train\.epoch"),
        ("[train]\nepochs = 0\n", r"At train\.epochs"),
        ("train = [", "readable TOML"),
        (
            "[network]\nfilters = [4, 8]\nconvolutions = [1]\n",
            r"At network: .*one count of convolutions per block",
        ),
        ("[network.plain]\nfilters = [4, 8]\n", r"At network\.plain: .*one count of convolutions per block"),
        ('[input]\nwidth = 64\nheight = 32\nresample = "box"\n', r"At input: .*square.* 64 x 32"),
    ],
)
def test_an_impossible_setting_is_named(tmp_path: Path, text: str, reason: str) -> None:
    """A misspelt setting would otherwise run for an hour with the default."""
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingError, match=reason):
        read_experiment(path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """A recipe in another encoding than UTF-8."""
    path = tmp_path / "wrong.toml"
    path.write_bytes(b"# M\xfcnchen\n")
    with pytest.raises(TrainingError, match="readable TOML"):
        read_experiment(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path stands in the error."""
    with pytest.raises(TrainingError, match=r"absent\.toml"):
        read_experiment(tmp_path / "absent.toml")
