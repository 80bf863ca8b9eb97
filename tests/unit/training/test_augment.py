"""Augmentation varies what a microscope varies, reproducibly, and nothing else."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.experiment import AugmentPlan
from training.synthetic import draw_tile

pytestmark = pytest.mark.tensorflow

keras = pytest.importorskip("keras")
augmentation = pytest.importorskip("training.augment")

OFF = AugmentPlan(stain=0, colour=0, contrast=0, blur=0, noise=0, zoom=0, rotation=0, grey=0)


@pytest.fixture(scope="module")
def batch() -> NDArray[np.uint8]:
    return np.stack([draw_tile(seed, 48) for seed in range(16)])


def varied(batch: NDArray[np.uint8], plan: AugmentPlan, seed: int = 1) -> NDArray[np.float32]:
    result: Any = augmentation.augment(batch, plan, keras.random.SeedGenerator(seed))
    return np.asarray(result)


def test_a_seed_decides_the_variation(batch: NDArray[np.uint8]) -> None:
    """A resumed run sees what an uninterrupted one would have seen."""
    plan = AugmentPlan(grey=0.2)
    np.testing.assert_array_equal(varied(batch, plan), varied(batch, plan))
    assert not np.array_equal(varied(batch, plan), varied(batch, plan, seed=3))


def test_values_stay_pixels(batch: NDArray[np.uint8]) -> None:
    """Between 0 and 255, of the same shape, finite."""
    result = varied(batch, AugmentPlan(stain=0.5, colour=0.5, contrast=0.5, noise=30))
    assert result.shape == batch.shape
    assert result.min() >= 0
    assert result.max() <= 255


def test_without_strength_only_the_eight_symmetries_are_left(batch: NDArray[np.uint8]) -> None:
    """Each image comes out as one of its eight flips and turns, and more than one kind is used."""
    seen = set()
    for original, received in zip(batch, varied(batch, OFF), strict=True):
        turned = [np.rot90(flipped, k) for flipped in (original, original[:, ::-1]) for k in range(4)]
        matches = [index for index, image in enumerate(turned) if np.array_equal(image, received)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) >= 4


@pytest.mark.parametrize(
    ("name", "strength"),
    [
        ("stain", 0.3),
        ("colour", 0.3),
        ("contrast", 0.3),
        ("blur", 1.0),
        ("noise", 5.0),
        ("zoom", 0.3),
        ("rotation", 20.0),
    ],
)
def test_each_strength_does_something(batch: NDArray[np.uint8], name: str, strength: float) -> None:
    """And not too much: the image is still about the same."""
    plain, changed = varied(batch, OFF), varied(batch, OFF.model_copy(update={name: strength}))
    difference = np.abs(plain - changed).mean()
    assert 0.1 < difference < 40


def test_grey_takes_the_colour_of_every_image_where_asked(batch: NDArray[np.uint8]) -> None:
    """Three equal channels."""
    result = varied(batch, OFF.model_copy(update={"grey": 1.0}))
    np.testing.assert_allclose(result[..., 0], result[..., 2], atol=1e-3)


def test_staining_leaves_an_empty_slide_empty() -> None:
    """Without dye there is nothing to change: white stays white."""
    white = np.full((4, 32, 32, 3), 255, np.uint8)
    assert varied(white, OFF.model_copy(update={"stain": 0.5})).min() > 254


def test_mixing_blends_images_and_labels_by_the_same_share(batch: NDArray[np.uint8]) -> None:
    """A fifth of a tumour is a fifth of its label, and never more than was asked for."""
    values = batch.astype(np.float32)
    labels = np.eye(len(batch), dtype=np.float32)
    images, targets = (
        np.asarray(part) for part in augmentation.mix(values, labels, 0.3, keras.random.SeedGenerator(1))
    )
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-6)
    assert 0.7 <= targets.diagonal().min() < 0.9
    kept = targets.diagonal()[:, np.newaxis, np.newaxis, np.newaxis]
    np.testing.assert_allclose(images, kept * values + (1 - kept) * values[::-1], atol=1e-2)
