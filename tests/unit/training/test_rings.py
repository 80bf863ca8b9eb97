"""Copies of a tile are recognised however they were turned, mirrored and scaled; other tiles are not."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.grouping import SAME_SOURCE
from training.registration import candidates, correlate
from training.rings import HARMONICS, RINGS, ring_spectrum
from training.synthetic import draw_tile

SIZE = 224


def turned_copy(tile: NDArray[np.uint8], degrees: float, mirrored: bool = False) -> NDArray[np.uint8]:
    """Return a copy as LC25000's were made: turned, cut to what has no corners, scaled up again."""
    image = Image.fromarray(tile).rotate(degrees, Image.Resampling.BICUBIC)
    angle = np.radians(abs(degrees))
    margin = SIZE * (1 - 1 / (np.cos(angle) + np.sin(angle))) / 2
    image = image.resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC, (margin, margin, SIZE - margin, SIZE - margin)
    )
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(image)


def agreement(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    spectra = [ring_spectrum(image)[np.newaxis] for image in (first, second)]
    return float(correlate(*spectra)[0])


def test_a_tile_has_one_spectrum_per_ring() -> None:
    """Whatever its size."""
    assert (
        ring_spectrum(draw_tile(1, 64)).shape == ring_spectrum(draw_tile(1, 224)).shape == (RINGS, HARMONICS)
    )


def test_a_tile_agrees_with_itself() -> None:
    """Completely, and no agreement is more than that."""
    assert agreement(draw_tile(4), draw_tile(4)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("degrees", [-25, -12, 5, 25])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_and_scaled_copy_is_recognised(degrees: float, mirrored: bool) -> None:
    """Up to 25 degrees, to both sides."""
    for seed in (1, 2, 3):
        tile = draw_tile(seed, SIZE)
        assert agreement(tile, turned_copy(tile, degrees, mirrored)) > SAME_SOURCE


def test_two_copies_turned_apart_are_recognised() -> None:
    """One to each side, one of them mirrored."""
    tile = draw_tile(5, SIZE)
    assert agreement(turned_copy(tile, 15), turned_copy(tile, -15, mirrored=True)) > SAME_SOURCE


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_change_nothing(quarters: int) -> None:
    """They move pixels, and no pixel's value."""
    tile = draw_tile(7, SIZE)
    assert agreement(tile, np.rot90(tile, quarters).copy()) > 0.99


def test_other_tiles_of_the_same_kind_do_not_agree() -> None:
    """Twelve drawings of one kind of tissue, all pairs."""
    spectra = np.stack([ring_spectrum(draw_tile(3 * seed + 1, SIZE)) for seed in range(12)])
    first, second = np.triu_indices(12, k=1)
    assert correlate(spectra[first], spectra[second]).max() < SAME_SOURCE


def test_a_copy_is_among_the_likeliest() -> None:
    """The cheap comparison finds what the full one must see."""
    tiles = [draw_tile(3 * seed, SIZE) for seed in range(20)]
    images = [*tiles, *(turned_copy(tile, 10, mirrored=True) for tile in tiles)]
    pairs, scores = candidates(np.stack([ring_spectrum(image) for image in images]), count=3)
    assert {(row, row + 20) for row in range(20)} <= {(int(a), int(b)) for a, b in pairs}
    assert (np.diff(scores) <= 0).all()
    assert (pairs[:, 0] < pairs[:, 1]).all()
