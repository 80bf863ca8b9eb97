"""A data folder is understood, or the trouble is named before hours are spent on it."""

import csv
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from shared.manifest import InputSpec
from training.dataset import read_tiles
from training.errors import TrainingError
from training.listing import CLASS_NAMES, imbalance, list_files
from training.prepare import check_grouping, prepare_folder

SPEC = InputSpec(width=32, height=32, resample="bicubic")


def quiet(_: str) -> None:
    """Report to nobody."""


@pytest.fixture
def unlisted(data: Path, tmp_path: Path) -> Path:
    """Return the tiles as LC25000 is published: class folders and no list of copies."""
    root = tmp_path / "LC25000"
    for name in CLASS_NAMES:
        shutil.copytree(data / name, root / "lung_image_sets" / name)
    return root


def test_the_published_layout_is_found(unlisted: Path) -> None:
    """Paths are relative to the folder that was named."""
    files = list_files(unlisted)
    assert len(files) == 54
    assert files[0].path.startswith("lung_image_sets/lung_aca/")
    assert {file.cluster for file in files} == {None}


def test_hidden_and_other_files_are_no_tiles(unlisted: Path) -> None:
    """A desktop leaves such things everywhere."""
    for name in (".DS_Store", "._0-0.jpeg", "Thumbs.db", "notes.txt"):
        (unlisted / "lung_image_sets/lung_n" / name).write_bytes(b"x")
    assert len(list_files(unlisted)) == 54


def test_folders_are_no_tiles_whatever_they_are_called(unlisted: Path) -> None:
    """A slide's tiles may lie in a folder with its name; what is hidden in a folder stays so."""
    root = unlisted / "lung_image_sets/lung_n"
    (root / "slide.tif").mkdir()
    (root / ".thumbnails").mkdir()
    shutil.move(root / "0-0.png", root / "slide.tif/tile.png")
    shutil.copyfile(root / "0-1.png", root / ".thumbnails/0-1.png")
    names = {file.path for file in list_files(unlisted)}
    assert len(names) == 54
    assert "lung_image_sets/lung_n/slide.tif/tile.png" in names


def test_a_name_that_is_no_text_is_named(unlisted: Path) -> None:
    """As an old archive leaves it: neither a list nor a card could hold it."""
    path = unlisted / "lung_image_sets/lung_n/0-0.png"
    path.rename(path.with_name(os.fsdecode(b"M\xfcller.png")))
    with pytest.raises(TrainingError, match=r"names of files in UTF-8.*'lung_image_sets/lung_n/M\\udcfcller"):
        list_files(unlisted)


def test_without_a_list_copies_are_grouped_and_remembered(unlisted: Path, tmp_path: Path) -> None:
    """Each drawing and its mirror image end in one cluster, for the commands that follow too."""
    tiles = prepare_folder(unlisted, tmp_path / "cache", SPEC, report=quiet)
    assert len({tile.cluster for tile in tiles}) == 27
    for tile in tiles:
        other = next(item for item in tiles if item.path == tile.path.replace("-0.png", "-1.png"))
        assert other.cluster == tile.cluster
    assert read_tiles(unlisted, tmp_path / "cache") == tiles


def test_without_a_list_an_unprepared_folder_is_refused(unlisted: Path, tmp_path: Path) -> None:
    """Training on it would leak; the way out is named."""
    with pytest.raises(TrainingError, match="run `prepare`"):
        read_tiles(unlisted, tmp_path / "cache")


def test_a_changed_folder_must_be_prepared_again(unlisted: Path, tmp_path: Path) -> None:
    """Groups belong to exactly the files that they were found on."""
    prepare_folder(unlisted, tmp_path / "cache", SPEC, report=quiet)
    folder = unlisted / "lung_image_sets/lung_n"
    shutil.copyfile(folder / "0-0.png", folder / "new.png")
    with pytest.raises(TrainingError, match="run `prepare`"):
        read_tiles(unlisted, tmp_path / "cache")


def test_an_unreadable_file_is_named_with_the_way_out(unlisted: Path, tmp_path: Path) -> None:
    """One corrupt file among thousands."""
    (unlisted / "lung_image_sets/lung_aca/3-1.png").write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"lung_aca/3-1\.png.*--skip-unreadable"):
        prepare_folder(unlisted, tmp_path / "cache", SPEC, report=quiet)


@pytest.mark.parametrize("listed", [False, True])
def test_an_unreadable_file_is_left_out_only_when_asked(
    data: Path, unlisted: Path, tmp_path: Path, listed: bool
) -> None:
    """It is named, and stays out of every later command, with or without a list."""
    folder = Path(shutil.copytree(data, tmp_path / "listed")) if listed else unlisted
    damaged = next(folder.rglob("lung_aca/3-1.png"))
    damaged.write_bytes(b"no image")
    lines: list[str] = []
    tiles = prepare_folder(folder, tmp_path / "cache", SPEC, skip_unreadable=True, report=lines.append)
    assert len(tiles) == 53
    assert any("left out" in line and "3-1.png" in line for line in lines)
    assert read_tiles(folder, tmp_path / "cache") == tiles


def test_a_class_without_a_readable_tile_is_refused(unlisted: Path, tmp_path: Path) -> None:
    """Leaving files out must not leave a class out."""
    for path in (unlisted / "lung_image_sets/lung_scc").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"readable tile of each class.*lung_scc"):
        prepare_folder(unlisted, tmp_path / "cache", SPEC, skip_unreadable=True, report=quiet)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    """Class folders alone are not enough."""
    for name in CLASS_NAMES:
        (tmp_path / name).mkdir()
    with pytest.raises(TrainingError, match="Expected images in"):
        list_files(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A slip of the pen ends with one line."""
    with pytest.raises(TrainingError, match="no such folder"):
        list_files(tmp_path / "absent")


def test_a_missing_class_folder_is_named(unlisted: Path) -> None:
    """With the counts of the others."""
    shutil.rmtree(unlisted / "lung_image_sets/lung_scc")
    with pytest.raises(TrainingError, match="Expected tiles of exactly lung_n, lung_aca, lung_scc"):
        list_files(unlisted)


def test_a_far_too_small_class_is_refused(unlisted: Path) -> None:
    """One tile beside eighteen is not learnt."""
    paths = sorted((unlisted / "lung_image_sets/lung_scc").iterdir())
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(TrainingError, match=r"similar size, at most 10 to 1.*'lung_scc': 1"):
        list_files(unlisted)


def test_what_is_only_scored_may_have_far_more_of_one_class(unlisted: Path) -> None:
    """As many a hospital has."""
    for path in sorted((unlisted / "lung_image_sets/lung_scc").iterdir())[1:]:
        path.unlink()
    assert len(list_files(unlisted, to_train=False)) == 37


def test_a_smaller_class_is_worth_a_warning(unlisted: Path, tmp_path: Path) -> None:
    """Half as many and less."""
    for path in sorted((unlisted / "lung_image_sets/lung_scc").iterdir())[6:]:
        path.unlink()
    lines: list[str] = []
    prepare_folder(unlisted, tmp_path / "cache", SPEC, report=lines.append)
    assert any(line.startswith("warning: the largest class has 3.0 times") for line in lines)


def test_identical_files_in_two_classes_are_refused(unlisted: Path, tmp_path: Path) -> None:
    """One image cannot have two diagnoses, whatever the list says."""
    root = unlisted / "lung_image_sets"
    shutil.copyfile(root / "lung_n/0-0.png", root / "lung_aca/0-0.png")
    with pytest.raises(TrainingError, match=r"identical files: .*0-0\.png, .*0-0\.png"):
        prepare_folder(unlisted, tmp_path / "cache", SPEC, report=quiet)


def test_the_grouping_is_measured_against_a_known_list(data: Path) -> None:
    """Drawn tiles are easy: every pair is found and no other."""
    agreement = check_grouping(data, read_tiles(data), quiet)
    assert (agreement.precision, agreement.recall) == (1.0, 1.0)


def test_a_full_disk_leaves_no_half_a_cache(
    unlisted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own words reach the command, which prints them as one line."""

    def full(path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        prepare_folder(unlisted, tmp_path / "cache", SPEC, report=quiet)
    assert not list((tmp_path / "cache").glob("tiles-*"))


def test_imbalance_is_a_ratio() -> None:
    """Three to one."""
    assert imbalance(["a", "a", "a", "b"]) == 3.0


def test_a_found_list_is_one_like_any_other(unlisted: Path, tmp_path: Path) -> None:
    """It has the columns of a clusters file: a user can look at it, or keep it beside the data."""
    prepare_folder(unlisted, tmp_path / "cache", SPEC, report=quiet)
    path = next((tmp_path / "cache").glob("clusters-*.csv"))
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["path", "class", "cluster"]
    shutil.copyfile(path, unlisted / "clusters.csv")
    assert len(read_tiles(unlisted)) == 54
