"""Colours, corners and shuffled labels are scored as what they are: no sight of tissue."""

import numpy as np
import pytest

from training.dataset import Images
from training.floors import (
    colour_histograms,
    corner_numbers,
    measure_floors,
    nearest_neighbour,
    score,
    softmax_regression,
)

CLUSTERS, COPIES = 60, 4


def drawn(colour_knows: bool) -> tuple[Images, np.ndarray, np.ndarray, np.ndarray]:
    """Return 240 plain tiles in 60 clusters of one colour each, which tells the class or tells nothing."""
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(CLUSTERS), COPIES)
    labels = groups % 3
    colours = random.uniform(60, 200, (CLUSTERS, 3))
    if colour_knows:
        colours[:, 0] = 60 + 60 * (np.arange(CLUSTERS) % 3)
    pixels = colours[groups][:, np.newaxis, np.newaxis, :] + random.normal(0, 2, (len(groups), 16, 16, 3))
    inputs = pixels.clip(0, 255).astype(np.uint8)
    means, deviations = inputs.mean(axis=(1, 2)), inputs.std(axis=(1, 2))
    measured = np.hstack([means, deviations, np.zeros((len(groups), 1))])
    return Images(inputs, measured), labels, groups, (groups // 3) % 5


def test_colours_that_know_the_class_are_a_high_floor() -> None:
    """And the floor is the same by cluster and by image: nothing had to leak."""
    floors = measure_floors(*drawn(colour_knows=True))
    assert floors["colour_mean_sd"] > 0.95
    assert floors["corner"] > 0.9


def test_a_split_by_image_makes_a_neighbour_in_colour_omniscient() -> None:
    """The colours say nothing, but copies are on both sides; shuffled labels come back just as well."""
    floors = measure_floors(*drawn(colour_knows=False))
    assert floors["nearest_neighbour"] < 0.6
    assert floors["nearest_neighbour_leaky"] > 0.8
    assert floors["label_shuffle_leaky"] > 0.8
    assert floors["label_shuffle"] < 0.6


@pytest.mark.parametrize("classifier", [softmax_regression, nearest_neighbour])
def test_a_classifier_never_sees_the_fold_that_it_is_scored_on(classifier: object) -> None:
    """Numbers that only name the fold's own rows teach nothing."""
    labels = np.arange(90) % 3
    numbers = np.random.default_rng(1).normal(0, 1, (90, 4))
    assert score(classifier, numbers, labels, np.arange(90) % 5) < 0.6  # type: ignore[arg-type]


def test_histograms_are_shares() -> None:
    """Eight bins a channel, each channel's sum 1."""
    inputs = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    rows = colour_histograms(inputs)
    assert rows.shape == (5, 24)
    np.testing.assert_allclose(rows.reshape(5, 3, 8).sum(axis=2), 1.0)


def test_the_corner_is_twenty_pixels_of_224() -> None:
    """What lies beside it is not looked at."""
    inputs = np.zeros((1, 224, 224, 3), np.uint8)
    inputs[:, :20, :20] = 100
    np.testing.assert_allclose(corner_numbers(inputs), [[100, 100, 100, 0, 0, 0]])
