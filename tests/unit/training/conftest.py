"""A small data folder of drawn tiles, in the layout of the real one."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.training import tiny
from training.listing import CLASS_NAMES
from training.synthetic import draw_tile

CLUSTERS_PER_CLASS = 9
COPIES = 2


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 54 tiles of 64 pixels: 9 clusters a class, two mirrored copies each."""
    folder = tmp_path_factory.mktemp("tiles")
    rows = [_write(folder, kind, number) for kind in range(3) for number in range(CLUSTERS_PER_CLASS)]
    write_clusters(folder, [row for pair in rows for row in pair])
    return folder


@pytest.fixture(scope="session")
def trained_folds(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose `cv` holds three trained folds, a release and their calibration: to copy."""
    folder = tmp_path_factory.mktemp("folds")
    recipe = tiny.write_recipe(folder, tiny.FOLDS)
    assert tiny.command("train", data, folder / "cv", "--config", recipe, "--folds", "3", "--release") == 0
    assert tiny.command("calibrate", data, folder / "cv") == 0
    return folder


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
