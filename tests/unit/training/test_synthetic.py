"""Drawn tiles look like stained tissue to every part that must handle them."""

import hashlib

import numpy as np
import pytest

from training.synthetic import draw_tile
from worker.engine.quality import background_fraction, sharpness


@pytest.mark.parametrize("size", [32, 100, 224, 300])
def test_a_tile_has_the_size_that_was_asked_for(size: int) -> None:
    """Square RGB bytes."""
    tile = draw_tile(4, size)
    assert tile.shape == (size, size, 3)
    assert tile.dtype == np.uint8


def test_a_seed_always_draws_the_same_tile() -> None:
    """Twice the same, and other seeds differ."""
    digests = [hashlib.sha256(draw_tile(seed).tobytes()).hexdigest() for seed in (5, 5, 8)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("seed", range(12))
def test_a_tile_passes_for_stained_tissue(seed: int) -> None:
    """No background, sharp, and pink to purple: less green than red and blue."""
    tile = draw_tile(seed)
    assert background_fraction(tile, 220) < 0.1
    assert 60 < sharpness(tile) < 1000
    red, green, blue = tile.reshape(-1, 3).mean(axis=0)
    assert green < min(red, blue)


def test_too_small_a_tile_is_refused() -> None:
    """Nothing would be seen on it."""
    with pytest.raises(ValueError, match="Expected a size of at least 32"):
        draw_tile(1, 31)
