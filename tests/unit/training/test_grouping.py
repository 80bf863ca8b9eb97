"""Copies end in one group, strangers in groups of their own, and the measure of that is right."""

import numpy as np
import pytest
from PIL import Image

from training.grouping import compare_groupings, group_copies
from training.rings import ring_spectrum
from training.synthetic import draw_tile


def quiet(_: str) -> None:
    """Report to nobody."""


def test_copies_are_grouped_and_strangers_are_not() -> None:
    """Nine drawings of three classes, each with a mirrored and a quarter-turned copy."""
    spectra, classes, known = [], [], []
    for seed in range(9):
        tile = Image.fromarray(draw_tile(seed))
        for copy in (tile, tile.transpose(Image.Transpose.FLIP_TOP_BOTTOM), tile.rotate(90)):
            spectra.append(ring_spectrum(np.array(copy)))
            classes.append(f"class {seed % 3}")
            known.append(f"tile {seed}")
    digests = [f"{row}" for row in range(27)]
    groups = group_copies(np.stack(spectra), classes, digests, quiet)
    agreement = compare_groupings(groups, known)
    assert (agreement.precision, agreement.recall, agreement.groups) == (1.0, 1.0, 9)


def test_identical_files_are_always_one_group() -> None:
    """By digest alone, whatever the pixels would say."""
    spectra = np.stack([ring_spectrum(draw_tile(seed)) for seed in (0, 3, 6)])
    groups = group_copies(spectra, ["a", "a", "a"], ["x", "y", "x"], quiet)
    assert groups[0] == groups[2] != groups[1]


def test_a_class_of_one_tile_is_a_group() -> None:
    """There is nothing to compare it with."""
    spectra = ring_spectrum(draw_tile(1))[np.newaxis]
    assert group_copies(spectra, ["a"], ["x"], quiet) == ["a-0000"]


@pytest.mark.parametrize(
    ("received", "precision", "recall"),
    [("aabb", 1.0, 1.0), ("aaaa", 2 / 6, 1.0), ("abcd", 1.0, 0.0), ("aabc", 1.0, 0.5)],
)
def test_precision_and_recall_are_those_of_pairs(received: str, precision: float, recall: float) -> None:
    """Two known pairs among four tiles."""
    agreement = compare_groupings(received, "xxyy")
    assert agreement.precision == pytest.approx(precision)
    assert agreement.recall == pytest.approx(recall)
    assert agreement.known_groups == 2
