"""Each change does what its name says, to the same tile always the same."""

import zlib

import numpy as np
import pytest

from training.perturbations import changes, eight_views
from training.synthetic import draw_tile

TILE = draw_tile(1)
NAMES = list(changes())


def changed(name: str) -> np.ndarray:
    return changes()[name](TILE, np.random.default_rng((zlib.crc32(name.encode()), 1)))


def test_every_demanded_change_is_there() -> None:
    """By the words of the card."""
    for needed in (
        "JPEG quality 95", "JPEG quality 75", "JPEG quality 50", "JPEG quality 30", "blur", "brightness",
        "contrast", "hue", "H&E stain jitter", "noise", "grey", "strong colour jitter", "scale x 0.5",
        "scale x 2.0", "768 to 224 px, bilinear", "enlarged to 768 px",
    ):  # fmt: skip
        assert any(name.startswith(needed) for name in NAMES), needed


@pytest.mark.parametrize("name", NAMES)
def test_a_change_changes_and_leaves_a_tile(name: str) -> None:
    """RGB bytes; something else, and still about the same brightness."""
    result = changed(name)
    assert result.dtype == np.uint8
    assert result.shape == ((768, 768, 3) if name == "enlarged to 768 px" else TILE.shape)
    if result.shape == TILE.shape:
        assert not np.array_equal(result, TILE)
    assert abs(result.mean() - TILE.mean()) < 60


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_a_change(name: str) -> None:
    """A card made twice says the same."""
    np.testing.assert_array_equal(changed(name), changed(name))


def test_grey_has_no_colour() -> None:
    """Three equal channels."""
    result = changed("grey")
    np.testing.assert_array_equal(result[..., 0], result[..., 2])


def test_twice_as_large_is_the_middle() -> None:
    """A mark in the middle grows to four times its size, or shrinks to a quarter."""
    tile = np.full((224, 224, 3), 200, np.uint8)
    tile[108:116, 108:116] = 0
    larger = changes()["scale x 2.0"](tile, np.random.default_rng(1))
    smaller = changes()["scale x 0.5"](tile, np.random.default_rng(1))
    assert (larger < 100).all(axis=2).sum() == pytest.approx(256, rel=0.1)
    assert (smaller[92:132, 92:132] < 100).all(axis=2).sum() == 16


@pytest.mark.parametrize("size", [(400, 96), (96, 400)])
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("scale")])
def test_an_image_that_is_not_square_is_scaled_about_its_middle(name: str, size: tuple[int, int]) -> None:
    """A mark there stays there, and the image keeps its proportions."""
    height, width = size
    image = np.full((height, width, 3), 200, np.uint8)
    image[height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8] = 0
    result = changes()[name](image, np.random.default_rng(1))
    assert result.shape == image.shape
    rows, columns = np.nonzero((result < 100).all(axis=2))
    assert rows.mean() == pytest.approx((height - 1) / 2, abs=1)
    assert columns.mean() == pytest.approx((width - 1) / 2, abs=1)


def test_an_empty_slide_takes_no_stain() -> None:
    """White stays white under any stain jitter."""
    white = np.full((32, 32, 3), 255, np.uint8)
    assert changes()["H&E stain jitter, 1 +- 0.4"](white, np.random.default_rng(1)).min() >= 254


def test_the_eight_views_are_all_different_and_the_first_is_the_tile() -> None:
    """Four turns of the tile and of its mirror image."""
    views = eight_views(TILE)
    np.testing.assert_array_equal(views[0], TILE)
    assert len({view.tobytes() for view in views}) == 8
