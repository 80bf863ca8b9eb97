"""Describe a tile by rings around its centre, on which turning, mirroring and scaling are plain shifts.

LC25000's copies are turned by up to 25 degrees, cut to what is left without corners, scaled up again and
mirrored: all about the centre. On rings whose radii grow by a constant factor a turn shifts along the rings,
a change of scale shifts across them, and a mirror image runs backwards. The Fourier transform along each ring
makes a comparison over all turns cheap, and its magnitudes do not change with turns and mirroring at all.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

#: Side in pixels at which tiles are compared: nuclei are still seen, and a set is done in minutes.
SIDE: Final = 112
RINGS: Final = 40
ANGLES: Final = 128
#: Fourier coefficients kept of each ring.
HARMONICS: Final = 40
#: Blurred by this many pixels before sampling, so that what lies between two rings is not lost.
_SOFTNESS: Final = 1.5
#: What is left after a blur by this many pixels is taken away: copies agree in detail, tissues in shading.
_SHADING: Final = 10.0
_INNERMOST: Final = 5.0
_CENTRE: Final = (SIDE - 1) / 2

RADII: Final = _INNERMOST * (_CENTRE / _INNERMOST) ** (np.arange(RINGS) / (RINGS - 1))

Spectrum = NDArray[np.complex64]


def ring_spectrum(image: NDArray[np.uint8]) -> Spectrum:
    """Return the Fourier coefficients of each ring, shape (RINGS, HARMONICS), of an RGB image of any size."""
    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX).convert("L")
    detail = _soften(small, _SOFTNESS) - _soften(small, _SHADING)
    spectrum: Spectrum = np.fft.rfft(_sample(detail), axis=1)[:, :HARMONICS].astype(np.complex64)
    return spectrum


def _soften(image: Image.Image, radius: float) -> NDArray[np.float32]:
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values on the rings, between four pixels each: shape (RINGS, ANGLES)."""
    flat = values.ravel()
    above = flat[_CORNER] * (1 - _RIGHT) + flat[_CORNER + 1] * _RIGHT
    below = flat[_CORNER + SIDE] * (1 - _RIGHT) + flat[_CORNER + SIDE + 1] * _RIGHT
    return (above * (1 - _DOWN) + below * _DOWN).astype(np.float32)


def _grid() -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Return each sample's upper left pixel, and how far right and down of it the sample lies."""
    turns = 2 * np.pi * np.arange(ANGLES) / ANGLES
    rows = _CENTRE + RADII[:, np.newaxis] * np.sin(turns)
    columns = _CENTRE + RADII[:, np.newaxis] * np.cos(turns)
    top, left = (np.clip(np.floor(part), 0, SIDE - 2).astype(np.int64) for part in (rows, columns))
    return top * SIDE + left, (columns - left).astype(np.float32), (rows - top).astype(np.float32)


_CORNER, _RIGHT, _DOWN = _grid()
