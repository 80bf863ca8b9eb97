"""The smallest recipe that goes through every command, with the smallest data folder for it."""

import csv
from pathlib import Path

from PIL import Image

from training.listing import CLASS_NAMES
from training.synthetic import draw_tile

CLUSTERS_PER_CLASS = 9
COPIES = 2

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
FOLDS = (
    NETWORK
    + "[split]\nheld_out_folds = 3\n"
    + "[train]\nepochs = 2\ncopies_per_cluster = 2\nbatch_size = 8\n"
)
#: A second expert with all that an expert can have: what is published and converted must know each layer.
PLAIN = """
[network.plain]
stem_filters = 4
filters = [4]
convolutions = [1]
pooled_blocks = 2
tap_filters = 4
colour_filters = [4, 4]
spread = true
root = true
feature_dropout = 0.5
dense_units = 8
"""
SINGLE = (
    NETWORK
    + PLAIN
    + "[split]\ntest_folds = 3\nheld_out_folds = 3\n"
    + "[train]\nepochs = 3\ncopies_per_cluster = 2\nbatch_size = 8\n"
)


def draw_data(folder: Path) -> Path:
    """Draw 54 tiles of 64 pixels with their list: 9 clusters a class, two mirrored copies each."""
    rows = [_write(folder, kind, number) for kind in range(3) for number in range(CLUSTERS_PER_CLASS)]
    write_clusters(folder, [row for pair in rows for row in pair])
    return folder


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


def write_clusters(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """Write `clusters.csv` with its header."""
    with (folder / "clusters.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "class", "cluster"), *rows])


def _write(folder: Path, kind: int, number: int) -> list[tuple[str, str, str]]:
    name = CLASS_NAMES[kind]
    (folder / name).mkdir(exist_ok=True)
    drawn = Image.fromarray(draw_tile(3 * number + kind, 64))
    copies = [drawn, drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    for index, image in enumerate(copies):
        image.save(folder / name / f"{number}-{index}.png")
    return [(f"{name}/{number}-{index}.png", name, f"{name}-{number}") for index in range(COPIES)]
