"""Labelled tiles are read as the worker would read them, or the trouble is named."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.manifest import InputSpec
from training.dataset import digest_of_tiles, labels_of, load_images, read_tiles
from training.errors import TrainingError
from training.listing import CLASS_NAMES
from worker.engine.decode import decode
from worker.engine.preprocess import preprocess

SPEC = InputSpec(width=32, height=32, resample="bicubic")


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """Return a copy of the data folder that a test may damage."""
    return Path(shutil.copytree(data, tmp_path / "copy"))


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "clusters.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_every_listed_tile_is_found_with_its_digest(data: Path) -> None:
    """54 tiles, sorted by path, each with 64 hex digits."""
    tiles = read_tiles(data)
    assert len(tiles) == 54
    assert [tile.path for tile in tiles] == sorted(tile.path for tile in tiles)
    assert all(len(tile.sha256) == 64 for tile in tiles)
    assert sorted(set(labels_of(tiles).tolist())) == [0, 1, 2]


def test_a_tile_is_decoded_and_preprocessed_as_it_is_served(data: Path, tmp_path: Path) -> None:
    """Training sees exactly what the worker's engine computes."""
    tiles = read_tiles(data)[:3]
    images = load_images(data, tiles, SPEC, tmp_path)
    expected = preprocess(decode((data / tiles[2].path).read_bytes(), 10**6), SPEC)
    np.testing.assert_array_equal(images.inputs[2], expected)
    assert images.measured.shape == (3, 7)


def test_what_trains_is_reduced_as_what_is_served(data: Path, tmp_path: Path) -> None:
    """Where the recipe, and so the manifest, has JPEGs reduced while they are decoded."""
    tiles = read_tiles(data)[:1]
    with Image.open(data / tiles[0].path) as image:
        image.resize((900, 900)).save(tmp_path / "large.jpeg", "JPEG")
    large = [replace(tiles[0], path="large.jpeg")]
    spec = InputSpec(width=32, height=32, resample="bicubic", draft=1.5)
    images = load_images(tmp_path, large, spec, tmp_path)
    reduced = decode((tmp_path / "large.jpeg").read_bytes(), 10**6, 336)
    assert reduced.shape == (450, 450, 3)
    np.testing.assert_array_equal(images.inputs[0], preprocess(reduced, spec))
    whole = spec.model_copy(update={"draft": None})
    assert (load_images(tmp_path, large, whole, tmp_path).inputs != images.inputs).any()


def test_decoded_tiles_come_from_the_cache_the_second_time(data: Path, tmp_path: Path) -> None:
    """The originals are not opened again."""
    tiles = read_tiles(data)[:2]
    first = load_images(data, tiles, SPEC, tmp_path)
    second = load_images(tmp_path / "gone", tiles, SPEC, tmp_path)
    np.testing.assert_array_equal(first.inputs, second.inputs)
    np.testing.assert_array_equal(first.measured, second.measured)


def test_two_processes_may_fill_the_cache_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is done while the first still writes: both have their tiles, and so has a third."""
    tiles, savez, process = read_tiles(data)[:2], np.savez, [1]

    def with_another(path: Path, **arrays: np.ndarray) -> None:
        savez(path, **arrays)
        if process == [1]:
            process[0] = 2
            load_images(data, tiles, SPEC, tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", with_another)
        patch.setattr("os.getpid", lambda: process[0])
        first = load_images(data, tiles, SPEC, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(load_images(data, tiles, SPEC, tmp_path).inputs, first.inputs)


def test_another_input_size_is_decoded_anew(data: Path, tmp_path: Path) -> None:
    """The cache knows what it was made for."""
    tiles = read_tiles(data)[:2]
    load_images(data, tiles, SPEC, tmp_path)
    other = load_images(data, tiles, InputSpec(width=40, height=40, resample="bicubic"), tmp_path)
    assert other.inputs.shape == (2, 40, 40, 3)


def test_a_changed_file_changes_the_digest_of_the_tiles(copy: Path) -> None:
    """Same names, other content: other data."""
    before = digest_of_tiles(read_tiles(copy))
    shutil.copyfile(copy / "lung_n/0-0.png", copy / "lung_n/1-0.png")
    assert digest_of_tiles(read_tiles(copy)) != before


def test_a_folder_without_a_list_is_refused(tmp_path: Path) -> None:
    """What is looked for is named, and what was there instead."""
    with pytest.raises(
        TrainingError, match=r"clusters\.csv or the class folders .* Received: an empty folder"
    ):
        read_tiles(tmp_path)


def test_a_list_without_the_columns_is_refused(copy: Path) -> None:
    """A list of another shape says which column is missing."""
    rewrite(copy, "path,class,cluster", "file,class,cluster")
    with pytest.raises(TrainingError, match="'path'"):
        read_tiles(copy)


def test_a_list_from_a_spreadsheet_is_read(copy: Path) -> None:
    """It begins with a byte order mark."""
    path = copy / "clusters.csv"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert len(read_tiles(copy)) == 54


@pytest.mark.parametrize(
    ("old", "new"),
    [("lung_n/0-0.png,lung_n,lung_n-0", row) for row in ("lung_n/0-0.png,lung_n,", "lung_n/0-0.png,lung_n")],
)
def test_a_row_without_a_cluster_is_refused(copy: Path, old: str, new: str) -> None:
    """Tiles of unknown origin are not all of one."""
    rewrite(copy, old, new)
    with pytest.raises(TrainingError, match=r"a cluster in each row .* Received: row \d+, lung_n/0-0\.png"):
        read_tiles(copy)


def test_a_list_that_is_no_list_is_refused(copy: Path) -> None:
    """Whatever it is, one line says so."""
    (copy / "clusters.csv").write_bytes(b'path,class,cluster\n"' + b"x" * 200_000)
    with pytest.raises(TrainingError, match="with the columns path, class and cluster"):
        read_tiles(copy)


def test_a_missing_class_is_refused(copy: Path) -> None:
    """Two of three classes make no three-class model."""
    path = copy / "clusters.csv"
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if "lung_scc" not in line]
    path.write_text("\n".join(kept), encoding="utf-8")
    with pytest.raises(TrainingError, match="Expected tiles of exactly lung_n, lung_aca, lung_scc"):
        read_tiles(copy)


def test_an_unknown_class_is_refused(copy: Path) -> None:
    """A misspelt class is not a fourth one."""
    rewrite(copy, "lung_n/0-0.png,lung_n,", "lung_n/0-0.png,lung_m,")
    with pytest.raises(TrainingError, match="lung_m"):
        read_tiles(copy)


def test_a_cluster_that_straddles_classes_is_refused(copy: Path) -> None:
    """Copies of one tile cannot have two diagnoses."""
    rewrite(copy, "lung_n/0-0.png,lung_n,lung_n-0", "lung_n/0-0.png,lung_n,lung_aca-0")
    with pytest.raises(TrainingError, match="Expected one class in cluster lung_aca-0"):
        read_tiles(copy)


def test_a_listed_file_that_is_missing_is_named(copy: Path) -> None:
    """The list promises more than the folder holds."""
    (copy / "lung_aca/3-1.png").unlink()
    with pytest.raises(TrainingError, match=r"3-1\.png"):
        read_tiles(copy)


def test_an_unreadable_image_is_named(copy: Path, tmp_path: Path) -> None:
    """One corrupt file among thousands can be found."""
    (copy / "lung_aca/3-1.png").write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"readable image at lung_aca/3-1\.png"):
        load_images(copy, read_tiles(copy), SPEC, tmp_path)


def test_the_class_order_is_fixed() -> None:
    """Weights depend on it: changing it would swap diagnoses."""
    assert CLASS_NAMES == ("lung_n", "lung_aca", "lung_scc")
