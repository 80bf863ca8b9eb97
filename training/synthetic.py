"""Draw tiles that look like H&E-stained lung, from a seed: golden tiles and test images without any patient.

Only integer arithmetic and uniform draws decide a pixel, so a seed gives the same tile on every machine with
the same Pillow.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Random = np.random.Generator
Box = tuple[int, int, int, int]

STROMA: Final[Colour] = (221, 158, 200)
CYTOPLASM: Final[Colour] = (198, 134, 190)
KERATIN: Final[Colour] = (232, 140, 176)
AIR: Final[Colour] = (228, 208, 224)
NUCLEUS: Final[Colour] = (98, 62, 142)
#: Tiles are drawn this much larger and then reduced, which softens every edge.
_OVERSAMPLING: Final = 2


def draw_tile(seed: int, size: int = 224) -> NDArray[np.uint8]:
    """Return a tile of shape (size, size, 3): air spaces, glands or solid nests, by `seed` modulo 3.

    Raises:
        ValueError: if `size` is under 32.
    """
    if size < 32:
        raise ValueError(f"Expected a size of at least 32. Received: {size}")
    random = np.random.default_rng(seed)
    canvas = Image.new("RGB", (size * _OVERSAMPLING, size * _OVERSAMPLING), _shade(random, STROMA, 8))
    _draw_fibres(canvas, random)
    _TISSUES[seed % len(_TISSUES)](canvas, random)
    soft = canvas.filter(ImageFilter.BoxBlur(1)).resize((size, size), Image.Resampling.BOX)
    return _add_grain(np.array(soft, dtype=np.uint8), random)


def _draw_fibres(canvas: Image.Image, random: Random) -> None:
    """Wavy eosin-pink strands over the whole tile."""
    pen = ImageDraw.Draw(canvas)
    side = canvas.width
    for _ in range(90):
        x, y = (int(value) for value in random.integers(-side // 8, side, 2))
        run, rise = (int(value) for value in random.integers(side // 20, side // 4, 2))
        points = [(x, y), (x + run, y + rise // 3), (x + 2 * run, y + rise)]
        pen.line(points, fill=_shade(random, STROMA, 24), width=int(random.integers(2, 7)))


def _draw_air_spaces(canvas: Image.Image, random: Random) -> None:
    """Thin walls between pale spaces, with few nuclei: as normal lung."""
    for box in _boxes(canvas, random, count=14, smallest=canvas.width // 8, largest=canvas.width // 3):
        ImageDraw.Draw(canvas).ellipse(box, fill=_shade(random, AIR, 6), outline=CYTOPLASM, width=6)
        _ring_of_nuclei(canvas, random, box, count=5)
    _scatter_nuclei(canvas, random, count=25, radius=canvas.width // 90)


def _draw_glands(canvas: Image.Image, random: Random) -> None:
    """Rings of crowded nuclei around a hollow: as adenocarcinoma."""
    for box in _boxes(canvas, random, count=9, smallest=canvas.width // 6, largest=canvas.width // 3):
        pen = ImageDraw.Draw(canvas)
        pen.ellipse(box, fill=_shade(random, CYTOPLASM, 14))
        pen.ellipse(_shrink(box, 3), fill=_shade(random, AIR, 10))
        _ring_of_nuclei(canvas, random, box, count=18)
    _scatter_nuclei(canvas, random, count=60, radius=canvas.width // 70)


def _draw_nests(canvas: Image.Image, random: Random) -> None:
    """Solid sheets of cells with keratin in the middle: as squamous cell carcinoma."""
    for box in _boxes(canvas, random, count=6, smallest=canvas.width // 4, largest=canvas.width // 2):
        ImageDraw.Draw(canvas).ellipse(box, fill=_shade(random, CYTOPLASM, 16))
        for _ in range(45):
            _draw_nucleus(canvas, random, _point_in(box, random), canvas.width // 60)
        ImageDraw.Draw(canvas).ellipse(_shrink(box, 3), fill=_shade(random, KERATIN, 10))
    _scatter_nuclei(canvas, random, count=120, radius=canvas.width // 64)


_TISSUES: Final[tuple[Callable[[Image.Image, Random], None], ...]] = (
    _draw_air_spaces,
    _draw_glands,
    _draw_nests,
)


def _boxes(canvas: Image.Image, random: Random, count: int, smallest: int, largest: int) -> list[Box]:
    boxes = []
    for _ in range(count):
        width, height = (int(value) for value in random.integers(smallest, largest, 2))
        x, y = (int(value) for value in random.integers(-smallest // 2, canvas.width - smallest // 2, 2))
        boxes.append((x, y, x + width, y + height))
    return boxes


def _shrink(box: Box, part: int) -> Box:
    left, upper, right, lower = box
    across, down = (right - left) // part, (lower - upper) // part
    return left + across, upper + down, right - across, lower - down


def _point_in(box: Box, random: Random) -> tuple[int, int]:
    left, upper, right, lower = box
    return int(random.integers(left, right)), int(random.integers(upper, lower))


def _ring_of_nuclei(canvas: Image.Image, random: Random, box: Box, count: int) -> None:
    """Place nuclei on the ellipse of `box`; the parametrisation needs no sine, which differs by machine."""
    left, upper, right, lower = box
    for _ in range(count):
        t = float(random.random()) * 2 - 1
        x, y = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        x = x if random.random() < 0.5 else -x
        centre = (
            int((left + right + x * (right - left)) / 2),
            int((upper + lower + y * (lower - upper)) / 2),
        )
        _draw_nucleus(canvas, random, centre, canvas.width // 64)


def _scatter_nuclei(canvas: Image.Image, random: Random, count: int, radius: int) -> None:
    for _ in range(count):
        _draw_nucleus(canvas, random, _point_in((0, 0, canvas.width, canvas.height), random), radius)


def _draw_nucleus(canvas: Image.Image, random: Random, centre: tuple[int, int], radius: int) -> None:
    radius = max(radius, 2)
    across, down = (int(value) for value in random.integers(radius // 2 + 1, 2 * radius, 2))
    x, y = centre
    pen = ImageDraw.Draw(canvas)
    pen.ellipse((x - across, y - down, x + across, y + down), fill=_shade(random, NUCLEUS, 30))
    pen.ellipse((x, y, x + across // 3, y + down // 3), fill=_shade(random, (70, 40, 110), 15))


def _shade(random: Random, colour: Colour, spread: int) -> Colour:
    """Return `colour` a little lighter or darker, as one shift of all channels."""
    shift = int(random.integers(-spread, spread + 1))
    red, green, blue = (min(255, max(0, channel + shift)) for channel in colour)
    return red, green, blue


def _add_grain(image: NDArray[np.uint8], random: Random) -> NDArray[np.uint8]:
    grain = random.integers(
        -4, 5, (*image.shape[:2], 1)
    )  # one for all channels: colour noise does not compress
    return (image.astype(np.int64) + grain).clip(0, 255).astype(np.uint8)
