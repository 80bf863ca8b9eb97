"""Measure whether an image is one that the model can judge, and name every reason to doubt it.

Different gates catch different failures, so each is its own measurement and its own word, never one number.
Only `background` rejects: nearly every laboratory's slides lie outside the training set's colours, so a
colour gate that refused would refuse nearly every user.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.manifest import ColourStatistics, Gates

Reason = Literal["background", "blurred", "out_of_domain", "unfamiliar", "scale_mismatch"]

#: Side in pixels at which every value is measured; the manifest's thresholds are stated for it.
MEASURED_SIDE: Final = 224
#: ITU-R 601 luma, as in Pillow's "L", in thousandths: whole numbers, with which float32 is exact, and quick.
_LUMA: Final = np.array([299, 587, 114], np.float32)
_LEVELS: Final = np.arange(256.0)


@dataclass(frozen=True)
class Quality:
    """What the gates measured on one image."""

    #: Share of pixels whose smallest channel is over the background level.
    background_fraction: float
    #: Variance of the Laplacian of the grey image, in squared grey levels.
    sharpness: float
    #: Mahalanobis distance of the six colour numbers to the nearest class.
    domain_distance: float
    #: The same of the network's pooled features; None where the network was not asked, or its version has no
    #: such statistics.
    feature_distance: float | None = None
    #: Micrometres per pixel at 224 x 224, across and down; None where the caller did not state them.
    mpp: tuple[float, float] | None = None


@dataclass(frozen=True)
class Assessment:
    """What the measurements mean by the manifest's thresholds."""

    rejected: bool
    reasons: tuple[Reason, ...]


def measure(image: NDArray[np.uint8], gates: Gates, mpp: float | None = None) -> Quality:
    """Measure an RGB image of shape (height, width, 3) at 224 x 224 pixels.

    `mpp` is how many micrometres a pixel of the image covers, where that is known.
    """
    picture = Image.fromarray(image)
    return measure_view(resize_for_measuring(picture), gates, mpp, picture.size)


def measure_view(view: NDArray[np.uint8], gates: Gates, mpp: float | None, size: tuple[int, int]) -> Quality:
    """Measure what `resize_for_measuring` made of an image of this width and height."""
    return Quality(
        background_fraction=background_fraction(view, gates.background_level),
        sharpness=sharpness(view),
        domain_distance=domain_distance(colour_numbers(view), gates.colour),
        mpp=None if mpp is None else mpp_when_measured(mpp, *size),
    )


def assess(quality: Quality, gates: Gates) -> Assessment:
    """Return whether the image gets no class at all, and the exact words for what is wrong with it."""
    reasons: list[Reason] = []
    if quality.background_fraction > gates.background_warn:
        reasons.append("background")
    if quality.sharpness < gates.sharpness_low:
        reasons.append("blurred")
    if quality.domain_distance > gates.domain_distance or quality.sharpness > gates.sharpness_high:
        reasons.append("out_of_domain")
    if is_unfamiliar(quality.feature_distance, gates):
        reasons.append("unfamiliar")
    if is_of_another_scale(quality.mpp, gates):
        reasons.append("scale_mismatch")
    return Assessment(quality.background_fraction > gates.background_reject, tuple(reasons))


def is_unfamiliar(feature_distance: float | None, gates: Gates) -> bool:
    """Tell whether the network's features lie further from every class than those of the training tiles."""
    if feature_distance is None or gates.features is None:
        return False
    return feature_distance > gates.features.distance


def is_of_another_scale(mpp: tuple[float, float] | None, gates: Gates) -> bool:
    """Tell whether a pixel at 224 x 224 covers more or less tissue, across or down, than in training."""
    if mpp is None or gates.mpp is None:
        return False
    low, high = gates.mpp
    return min(mpp) < low or max(mpp) > high


def mpp_when_measured(mpp: float, width: int, height: int) -> tuple[float, float]:
    """Return the micrometres per pixel, across and down, of an image once it is 224 x 224 pixels."""
    return mpp * width / MEASURED_SIDE, mpp * height / MEASURED_SIDE


def resize_for_measuring(picture: Image.Image) -> NDArray[np.uint8]:
    """Return the image at 224 x 224 pixels, by the filter that the training set itself was made with."""
    side = (MEASURED_SIDE, MEASURED_SIDE)
    if picture.size != side:
        picture = picture.resize(side, Image.Resampling.BICUBIC)
    return np.array(picture, dtype=np.uint8)


def background_fraction(image: NDArray[np.uint8], level: int) -> float:
    """Return the share of pixels, 0 to 1, that are as bright as an empty slide."""
    darkest = np.minimum(np.minimum(image[..., 0], image[..., 1]), image[..., 2])
    return np.count_nonzero(darkest > level) / darkest.size


def sharpness(image: NDArray[np.uint8]) -> float:
    """Return the variance of the four-neighbour Laplacian of the grey image, without its border."""
    grey = image.astype(np.float32) @ _LUMA
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1]
    laplacian += grey[1:-1, :-2]
    laplacian += grey[1:-1, 2:]
    laplacian -= 4.0 * grey[1:-1, 1:-1]
    return float(laplacian.astype(np.float64).var() / 1000.0**2)


def colour_numbers(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return mean red, green, blue and then their standard deviations: shape (6,), in grey levels."""
    # From the histogram: exact for bytes, and twenty times faster than from the pixels.
    counts = np.array(Image.fromarray(image).histogram(), dtype=np.float64).reshape(3, 256)
    shares = counts / counts[0].sum()
    means = shares @ _LEVELS
    variances = ((_LEVELS - means[:, np.newaxis]) ** 2 * shares).sum(axis=1)
    return np.concatenate([means, np.sqrt(variances)])


def domain_distance(numbers: NDArray[np.float64], colour: tuple[ColourStatistics, ...]) -> float:
    """Return the Mahalanobis distance of six colour numbers to the nearest class."""
    return min(_mahalanobis(numbers, statistics) for statistics in colour)


def _mahalanobis(numbers: NDArray[np.float64], statistics: ColourStatistics) -> float:
    offset = numbers - np.array(statistics.mean)
    squared = offset @ np.array(statistics.inverse_covariance) @ offset
    return float(np.sqrt(max(squared, 0.0)))  # rounding in the inverse can leave a tiny negative
