"""The smallest recipe that goes through every command."""

from pathlib import Path

NETWORK = """
[input]
width = 32
height = 32
resample = "bicubic"
[network]
filters = [4, 8]
convolutions = [1, 1]
dense_units = 8
"""
FOLDS = NETWORK + "[train]\nepochs = 2\ncopies_per_cluster = 2\nbatch_size = 8\n"
SINGLE = (
    NETWORK
    + "[split]\ntest_folds = 3\nheld_out_folds = 3\n"
    + "[train]\nepochs = 3\ncopies_per_cluster = 2\nbatch_size = 8\n"
)


def command(name: str, data: Path, run: Path, *more: str) -> int:
    """Run one command of `python -m training` on a run folder; its cache lies beside it."""
    return call(name, "--data", str(data), "--cache", str(run.parent / "cache"), "--run", str(run), *more)


def call(*arguments: str) -> int:
    """Run `python -m training` with these arguments; return its exit status."""
    from training.__main__ import main  # noqa: PLC0415 - it imports TensorFlow

    return int(main([*arguments]))


def write_recipe(folder: Path, recipe: str) -> str:
    """Write a recipe into a folder; return the file's name."""
    path = folder / "tiny.toml"
    path.write_text(recipe, encoding="utf-8")
    return str(path)
