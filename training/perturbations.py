"""Change a tile as other laboratories, scanners and mail programs do, each in one named way."""

from collections.abc import Callable
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

Pixels = NDArray[np.uint8]
#: From a tile and a source of chance to the changed tile.
Change = Callable[[Pixels, np.random.Generator], Pixels]

#: Optical densities of pure haematoxylin, eosin and what is left (Ruifrok and Johnston 2001), one a row.
_STAINS: Final = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
_UNMIX: Final = np.linalg.inv(_STAINS)
#: Side in pixels at which LC25000 is published.
_ORIGINAL_SIDE: Final = 768
_RESIZED_SIDE: Final = 224
_FILTERS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


def changes() -> dict[str, Change]:
    """Return every change by the name that the card gives it, in the card's order."""
    return {
        **{f"JPEG quality {quality}": _jpeg(quality) for quality in (95, 75, 50, 30)},
        **{f"blur, SD {radius} px": _blur(radius) for radius in (0.5, 1.0, 2.0)},
        **{f"brightness x {gain}": _enhance(ImageEnhance.Brightness, gain) for gain in (0.8, 1.2)},
        **{f"contrast x {gain}": _enhance(ImageEnhance.Contrast, gain) for gain in (0.7, 1.3)},
        **{f"hue {degrees:+d} degrees": _hue(degrees) for degrees in (-15, 15)},
        **{f"H&E stain jitter, 1 +- {share}": _stain_jitter(share) for share in (0.2, 0.4)},
        **{f"noise, SD {deviation}": _noise(deviation) for deviation in (5, 15)},
        "grey": _grey,
        "strong colour jitter": _strong_colour_jitter,
        **{f"scale x {factor}": _scale(factor) for factor in (0.5, 0.71, 1.41, 2.0)},
        "enlarged to 768 px": _enlarge,
        **{f"768 to 224 px, {name}": _resize(name) for name in _FILTERS},
    }


def eight_views(image: Pixels) -> list[Pixels]:
    """Return a tile in its eight flips and quarter turns; the first is the tile as it is."""
    return [
        np.ascontiguousarray(np.rot90(seen, quarters))
        for seen in (image, image[:, ::-1])
        for quarters in range(4)
    ]


def _jpeg(quality: int) -> Change:
    def change(image: Pixels, _: np.random.Generator) -> Pixels:
        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.array(Image.open(buffer))

    return change


def _blur(radius: float) -> Change:
    return lambda image, _: np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance], gain: float) -> Change:
    return lambda image, _: np.array(kind(Image.fromarray(image)).enhance(gain))


def _hue(degrees: float) -> Change:
    def change(image: Pixels, _: np.random.Generator) -> Pixels:
        hue, saturation, value = Image.fromarray(image).convert("HSV").split()
        turned = ((np.asarray(hue).astype(np.int64) + round(degrees / 360 * 256)) % 256).astype(np.uint8)
        return np.array(Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB"))

    return change


def _stain_jitter(share: float) -> Change:
    """Change the amount of each stain by up to `share` of itself, in optical density."""

    def change(image: Pixels, random: np.random.Generator) -> Pixels:
        gains = random.uniform(1 - share, 1 + share, 3)
        density = -np.log((image.astype(np.float64) + 1) / 256)
        changed = density @ (_UNMIX @ (gains[:, np.newaxis] * _STAINS))
        return _to_bytes(256 * np.exp(-changed) - 1)

    return change


def _noise(deviation: float) -> Change:
    return lambda image, random: _to_bytes(image + random.normal(0, deviation, image.shape))


def _grey(image: Pixels, _: np.random.Generator) -> Pixels:
    return np.array(Image.fromarray(image).convert("L").convert("RGB"))


def _strong_colour_jitter(image: Pixels, random: np.random.Generator) -> Pixels:
    """Stain by 35 %, hue by 15 degrees, saturation by 30 %, brightness and contrast by 20 %, all at once."""
    image = _stain_jitter(0.35)(image, random)
    image = _hue(float(random.uniform(-15, 15)))(image, random)
    for kind, share in (
        (ImageEnhance.Color, 0.3),
        (ImageEnhance.Brightness, 0.2),
        (ImageEnhance.Contrast, 0.2),
    ):
        image = _enhance(kind, float(random.uniform(1 - share, 1 + share)))(image, random)
    return image


def _scale(factor: float) -> Change:
    """Show tissue `factor` times as large: the middle alone, or the tile with its mirror images around it."""

    def change(image: Pixels, _: np.random.Generator) -> Pixels:
        height, width = image.shape[:2]
        down, across = (round(abs(side / factor - side) / 2) for side in (height, width))
        if factor > 1:
            field = image[down : height - down, across : width - across]
        else:
            field = np.pad(image, ((down, down), (across, across), (0, 0)), mode="symmetric")
        return np.array(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC))

    return change


def _enlarge(image: Pixels, _: np.random.Generator) -> Pixels:
    size = (_ORIGINAL_SIDE, _ORIGINAL_SIDE)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _resize(name: str) -> Change:
    """Reduce as somebody else's script might, from the enlarged tile, as the originals are not at hand."""

    def change(image: Pixels, random: np.random.Generator) -> Pixels:
        large = Image.fromarray(_enlarge(image, random))
        return np.array(large.resize((_RESIZED_SIDE, _RESIZED_SIDE), _FILTERS[name]))

    return change


def _to_bytes(values: NDArray[np.float64]) -> Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)
