"""The tiles that are sent: real ones where they are at hand, else drawn ones; none that a gate rejects."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.manifest import MANIFEST_NAME, Gates, parse_manifest
from training.synthetic import draw_tile
from worker.engine.decode import decode
from worker.engine.quality import assess, measure

_REAL_224 = "lc25000-lung-224"
_REAL_768 = "lc25000-lungaca1-768.jpeg"
_QUALITY = 85
_MAX_PIXELS = 4096 * 4096


def gather_tiles(size: int, count: int, model: Path, data: Path, cache: Path) -> list[Path]:
    """Return files of `count` JPEG tiles of size x size pixels, each with its own pixels.

    Raises:
        ValueError: if too few tiles pass the model's gates: a rejected tile costs no inference and would
            flatter whoever has gates.
    """
    gates = parse_manifest((model / MANIFEST_NAME).read_bytes()).gates
    folder = cache / f"tiles-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    chosen: list[Path] = []
    for image in _candidates(size, count, data):
        if len(chosen) == count:
            break
        if _passes(image, gates):
            chosen.append(folder / f"{len(chosen):04d}.jpeg")
            chosen[-1].write_bytes(image)
    if len(chosen) < count:
        raise ValueError(f"Expected {count} tiles that no gate rejects. Found: {len(chosen)}")
    return chosen


def kind_of_tiles(size: int, data: Path) -> str:
    """Return in words where tiles of this size come from."""
    if size == 224 and (data / _REAL_224).is_dir():
        return "real tiles"
    if size == 768 and (data / _REAL_768).is_file():
        return "one real tile in its eight turns, and drawn ones"
    return "drawn tiles"


def _candidates(size: int, count: int, data: Path) -> Iterator[bytes]:
    if size == 224 and (data / _REAL_224).is_dir():
        folders = sorted(path for path in (data / _REAL_224).iterdir() if path.is_dir())
        # An equal share of each class, taken from all over it.
        columns = [_spread_out(sorted(folder.glob("*.jpeg")), 2 * count) for folder in folders]
        yield from (path.read_bytes() for row in zip(*columns, strict=False) for path in row)
    if size == 768 and (data / _REAL_768).is_file():
        yield from _turns(data / _REAL_768)
    yield from (_jpeg(draw_tile(seed, size)) for seed in range(10 * count))


def _spread_out(paths: list[Path], count: int) -> list[Path]:
    return paths[:: max(1, len(paths) // count)]


def _turns(path: Path) -> Iterator[bytes]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    for mirrored in (pixels, pixels[:, ::-1]):
        yield from (_jpeg(np.ascontiguousarray(np.rot90(mirrored, quarter))) for quarter in range(4))


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _passes(image: bytes, gates: Gates) -> bool:
    return not assess(measure(decode(image, _MAX_PIXELS), gates), gates).rejected
