"""Each gate measures one thing and has its own word."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import ValidationError

from shared.manifest import FeatureStatistics, Gates, Manifest
from worker.engine.quality import Quality, assess, colour_numbers, domain_distance, measure, sharpness

GOOD = Quality(background_fraction=0.01, sharpness=200.0, domain_distance=2.0)


def test_tissue_passes_every_gate(manifest: Manifest, tissue: NDArray[np.uint8]) -> None:
    """Nothing is held against a sharp image in the training set's colours."""
    assessment = assess(measure(tissue, manifest.gates), manifest.gates)
    assert not assessment.rejected
    assert assessment.reasons == ()


def test_an_empty_slide_is_rejected_as_background(manifest: Manifest) -> None:
    """White is no tissue."""
    quality = measure(np.full((300, 300, 3), 245, np.uint8), manifest.gates)
    assert quality.background_fraction == 1.0
    assessment = assess(quality, manifest.gates)
    assert assessment.rejected
    assert "background" in assessment.reasons


@pytest.mark.parametrize("colour", [(215, 255, 255), (255, 215, 255), (255, 255, 215)])
def test_a_pixel_is_background_only_where_every_channel_is_bright(
    manifest: Manifest, colour: tuple[int, int, int]
) -> None:
    """Bright pink is tissue, since its green channel is low; so is whatever lacks another."""
    image = np.full((224, 224, 3), colour, np.uint8)
    assert measure(image, manifest.gates).background_fraction == 0.0


def test_blurring_lowers_the_sharpness_until_it_is_a_reason(
    manifest: Manifest, tissue: NDArray[np.uint8]
) -> None:
    """The same field out of focus is flagged, and still answered."""
    soft = np.array(Image.fromarray(tissue).filter(ImageFilter.GaussianBlur(4)))
    assert sharpness(soft) < sharpness(tissue)
    assessment = assess(measure(soft, manifest.gates), manifest.gates)
    assert "blurred" in assessment.reasons
    assert not assessment.rejected


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    """One bright point of grey level 10 on black: known by hand."""
    image = np.zeros((7, 7, 3), np.uint8)
    image[3, 3] = 10
    values = np.zeros(25)
    values[0], values[1:5] = -40.0, 10.0
    assert sharpness(image) == pytest.approx(values.var())


def test_the_colour_numbers_are_means_and_deviations() -> None:
    """Six numbers in the order R, G, B, then their deviations."""
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = (10, 20, 30)
    np.testing.assert_allclose(colour_numbers(image), [5, 10, 15, 5, 10, 15])


def test_the_domain_distance_is_to_the_nearest_class(manifest: Manifest) -> None:
    """With identity covariance it is the Euclidean distance, and the closest class counts."""
    near, far = manifest.gates.colour[:2]
    moved = far.model_copy(update={"mean": tuple(value + 100 for value in far.mean)})
    numbers = np.array(near.mean) + np.array([3.0, 4.0, 0, 0, 0, 0])
    assert domain_distance(numbers, (moved, near)) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("changed", "rejected", "reasons"),
    [
        ({}, False, ()),
        ({"background_fraction": 0.25}, False, ()),
        ({"background_fraction": 0.26}, False, ("background",)),
        ({"background_fraction": 0.5}, False, ("background",)),
        ({"background_fraction": 0.51}, True, ("background",)),
        ({"sharpness": 60.0}, False, ()),
        ({"sharpness": 59.9}, False, ("blurred",)),
        ({"sharpness": 100_001.0}, False, ("out_of_domain",)),
        ({"domain_distance": 30.0}, False, ()),
        ({"domain_distance": 30.1}, False, ("out_of_domain",)),
        ({"sharpness": 1.0, "domain_distance": 99.0}, False, ("blurred", "out_of_domain")),
    ],
)
def test_reasons_follow_the_thresholds(
    manifest: Manifest, changed: dict[str, float], rejected: bool, reasons: tuple[str, ...]
) -> None:
    """A value at its threshold is still fine; only background rejects; every doubt has its word."""
    quality = Quality(**{**vars(GOOD), **changed})
    assessment = assess(quality, manifest.gates)
    assert (assessment.rejected, assessment.reasons) == (rejected, reasons)


@pytest.mark.parametrize(
    ("distance", "reasons"), [(None, ()), (4.0, ()), (4.1, ("unfamiliar",)), (99.0, ("unfamiliar",))]
)
def test_the_feature_space_has_a_word_of_its_own(
    manifest: Manifest, distance: float | None, reasons: tuple[str, ...]
) -> None:
    """It warns and never rejects; where the network was not asked it says nothing."""
    features = FeatureStatistics(projection=((1.0,),), centres=((0.0,),), distance=4.0)
    gates = manifest.gates.model_copy(update={"features": features})
    assessment = assess(Quality(**{**vars(GOOD), "feature_distance": distance}), gates)
    assert (assessment.rejected, assessment.reasons) == (False, reasons)


def test_a_version_without_statistics_flags_nothing_as_unfamiliar(manifest: Manifest) -> None:
    """Versions from before this gate go on as they were."""
    assert manifest.gates.features is None
    assert assess(Quality(**{**vars(GOOD), "feature_distance": 1e9}), manifest.gates).reasons == ()


@pytest.mark.parametrize(
    ("mpp", "width", "height", "mismatch"),
    [
        (None, 224, 224, False),
        (0.5, 224, 224, False),
        (0.35, 224, 224, False),
        (0.34, 224, 224, True),
        (0.61, 224, 224, True),
        (0.5, 768, 768, True),
        (0.15, 768, 768, False),
        (0.5, 448, 224, True),
        (0.5, 112, 224, True),
    ],
)
def test_the_scale_that_counts_is_that_of_the_whole_field(
    manifest: Manifest, mpp: float | None, width: int, height: int, mismatch: bool
) -> None:
    """0.5 micrometres suit a tile of 224 pixels, and not one of 768 that covers three times as much."""
    gates = manifest.gates.model_copy(update={"mpp": (0.35, 0.6)})
    image = np.random.default_rng(1).integers(60, 200, (height, width, 3), dtype=np.uint8)
    assessment = assess(measure(image, gates, mpp), gates)
    assert ("scale_mismatch" in assessment.reasons) == mismatch
    assert not assessment.rejected


def test_a_version_without_a_range_flags_no_scale(manifest: Manifest, tissue: NDArray[np.uint8]) -> None:
    """Versions from before this gate go on as they were."""
    assert manifest.gates.mpp is None
    assert assess(measure(tissue, manifest.gates, 9.0), manifest.gates).reasons == ()


@pytest.mark.parametrize("pair", [(0.6, 0.35), (0.0, 0.6), (0.5, 0.5)])
def test_a_range_of_scales_ascends(manifest: Manifest, pair: tuple[float, float]) -> None:
    """A range the wrong way round would flag everything."""
    with pytest.raises(ValidationError, match="two ascending positive numbers"):
        Gates.model_validate({**manifest.gates.model_dump(), "mpp": pair})


def test_values_are_measured_at_one_size(manifest: Manifest) -> None:
    """A field that comes at 768 pixels measures nearly as it does at 224."""
    random = np.random.default_rng(3).integers(60, 220, (60, 60, 3), dtype=np.uint8)
    large = Image.fromarray(random).resize((768, 768), Image.Resampling.BICUBIC)
    small = large.resize((224, 224), Image.Resampling.BICUBIC)
    first, second = (measure(np.array(image), manifest.gates) for image in (large, small))
    assert first.sharpness == pytest.approx(second.sharpness, rel=0.02)
    assert first.domain_distance == pytest.approx(second.domain_distance, abs=0.1)
