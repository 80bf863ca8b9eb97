"""What is submitted, and what its right outcome is."""

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from tests.fake_engine import CRASH, HANG
from tests.stack import png

#: How many different tiles the real engine is given.
DRAWN_TILES = 24


@dataclass(frozen=True)
class Tile:
    """One image as a file; `expected` tells whether a succeeded job's result is its own."""

    body: bytes
    is_poison: bool
    expected: Callable[[Mapping[str, Any]], bool]

    def is_right(self, job: Mapping[str, Any]) -> bool:
        """Tell whether the job ended as its image says: poison as poison, and nothing else so."""
        if self.is_poison:
            return bool(job["status"] == "failed" and job["error"]["code"] == "POISON")
        return bool(job["status"] == "succeeded" and job["result"] and self.expected(job["result"]))


def small_tile(number: int, marker: bytes = b"") -> Tile:
    """Return a small PNG like no other; what `marker` says happens in the fake engine."""
    text = PngImagePlugin.PngInfo()
    text.add_text("note", f"{number} {marker.decode()}")
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (number % 256, number // 256 % 256, 128)).save(file, "PNG", pnginfo=text)
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    return Tile(file.getvalue(), bool(marker), lambda result: result["sha256"] == digest)


def small_tiles(one_poison_in: int) -> Iterator[Tile]:
    """Yield small tiles for ever; one in so many crashes or hangs every engine that runs it."""
    for number in itertools.count():
        is_poison = number % one_poison_in == one_poison_in // 2
        marker = (CRASH, HANG)[number // one_poison_in % 2] if is_poison else b""
        yield small_tile(number, marker)


def drawn_tiles(answer: Callable[[bytes], Mapping[str, Any]]) -> Iterator[Tile]:
    """Return drawn tiles for ever; right is what the real engine says of each before anything is harmed."""
    known = [_drawn_tile(body, answer(body)) for body in (png(seed) for seed in range(DRAWN_TILES))]
    return itertools.cycle(known)


def _drawn_tile(body: bytes, first: Mapping[str, Any]) -> Tile:
    def expected(result: Mapping[str, Any]) -> bool:
        # Alone or among others: the same within the arithmetic of float32.
        return bool(
            result["class"] == first["class"]
            and result["probabilities"] == pytest.approx(first["probabilities"], abs=1e-4)
        )

    return Tile(body, False, expected)
