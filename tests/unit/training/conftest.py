"""A small data folder of drawn tiles, in the layout of the real one."""

from pathlib import Path

import pytest

from tests.unit.training import tiny


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 54 tiles of 64 pixels: 9 clusters a class, two mirrored copies each."""
    return tiny.draw_data(tmp_path_factory.mktemp("tiles"))


@pytest.fixture(scope="session")
def trained_folds(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose `cv` holds three trained folds, a release and their calibration: to copy."""
    folder = tmp_path_factory.mktemp("folds")
    recipe = tiny.write_recipe(folder, tiny.FOLDS)
    assert tiny.command("train", data, folder / "cv", "--config", recipe, "--folds", "3", "--release") == 0
    assert tiny.command("calibrate", data, folder / "cv") == 0
    return folder
