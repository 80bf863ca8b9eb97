"""Compare tiles over every turn, mirror image and change of scale about their centres."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.rings import ANGLES, HARMONICS, RADII, RINGS, Spectrum

#: Rings by which two copies can be apart: a scale of 1.54, where a turn by 25 degrees leaves at most 1.47.
_MOST_SHIFTED: Final = 7
#: The lower harmonics, which decide what is worth a full comparison.
_COARSE_HARMONICS: Final = 24
#: Tiles compared with all others at once: limits memory, not the result.
_BLOCK: Final = 1000
#: Inner rings count less, as they cover less tissue; outer ones not by area, as small errors grow outwards.
_WEIGHTS: Final = RADII.astype(np.float32)
#: A real signal's coefficients but the first stand for two.
_MULTIPLICITY: Final = np.where(np.arange(HARMONICS) == 0, 1.0, 2.0).astype(np.float32)


def correlate(first: Spectrum, second: Spectrum) -> NDArray[np.float32]:
    """Return how well each pair agrees at best, from -1 to 1; both have shape (pairs, RINGS, HARMONICS)."""
    best = np.full(len(first), -1.0, np.float32)
    for shift in range(-_MOST_SHIFTED, _MOST_SHIFTED + 1):
        weights = _shared_weights(shift)
        one, other = _centred(first[:, _outer(shift)], weights), _centred(second[:, _outer(-shift)], weights)
        norm = np.sqrt(_energy(one, weights) * _energy(other, weights)) + 1e-6
        weighted = one * weights[:, np.newaxis]
        for seen in (other.conj(), other):  # as it is, and mirrored
            spectrum = np.zeros((len(first), ANGLES // 2 + 1), np.complex64)
            spectrum[:, :HARMONICS] = (weighted * seen).sum(axis=1)
            agreement = np.fft.irfft(spectrum, n=ANGLES, axis=1).max(axis=1) * ANGLES
            best = np.maximum(best, agreement / norm)
    return best


def candidates(spectra: Spectrum, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs in which one is among the other's `count` likeliest copies, and how likely each is.

    Pairs have shape (n, 2), the smaller row first, each once, the likeliest first. Magnitudes alone are
    compared here: a copy is nearly always among the nearest, but so are strangers.
    """
    magnitudes = _standard_magnitudes(spectra)
    found: dict[tuple[int, int], float] = {}
    for rows, likeness in _likeness_by_block(magnitudes):
        nearest = np.argpartition(-likeness, min(count, likeness.shape[1] - 1), axis=1)[:, :count]
        for row, others in zip(rows, nearest, strict=True):
            for other in others[others != row]:
                pair = (min(int(row), int(other)), max(int(row), int(other)))
                found[pair] = float(likeness[row - rows[0], other])
    pairs = np.array(list(found), np.int64).reshape(-1, 2)
    scores = np.array(list(found.values()), np.float32)
    order = np.argsort(-scores, kind="stable")
    return pairs[order], scores[order]


def _outer(shift: int) -> slice:
    """Return the rings that are left when the other tile's lie `shift` further in."""
    return slice(max(shift, 0), RINGS + min(shift, 0))


def _shared_weights(shift: int) -> NDArray[np.float32]:
    weights: NDArray[np.float32] = np.sqrt(_WEIGHTS[_outer(shift)] * _WEIGHTS[_outer(-shift)])
    return weights


def _centred(rings: Spectrum, weights: NDArray[np.float32]) -> Spectrum:
    """Take the mean over all rings away, so that brightness alone is no agreement."""
    result = rings.copy()
    mean = (rings[:, :, 0] * weights).sum(axis=1) / weights.sum()
    result[:, :, 0] -= mean[:, np.newaxis]
    return result


def _energy(rings: Spectrum, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    squared = rings.real**2 + rings.imag**2
    energy: NDArray[np.float32] = (squared * weights[:, np.newaxis]).sum(axis=1) @ _MULTIPLICITY
    return energy


def _standard_magnitudes(spectra: Spectrum) -> NDArray[np.float32]:
    """Return magnitudes in which no ring and no harmonic outweighs the others by its size alone."""
    magnitudes = np.sqrt(np.abs(spectra[:, :, :_COARSE_HARMONICS]))
    standard = (magnitudes - magnitudes.mean(axis=0)) / (magnitudes.std(axis=0) + 1e-6)
    weighted: NDArray[np.float32] = standard * (_WEIGHTS**0.25)[:, np.newaxis]
    return weighted


def _likeness_by_block(
    magnitudes: NDArray[np.float32],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield rows, and their cosine to every tile at the best change of scale."""
    for start in range(0, len(magnitudes), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(magnitudes)))
        best = np.full((len(rows), len(magnitudes)), -1.0, np.float32)
        for shift in range(-_MOST_SHIFTED, _MOST_SHIFTED + 1):
            one = _directions(magnitudes[rows][:, _outer(shift)])
            np.maximum(best, one @ _directions(magnitudes[:, _outer(-shift)]).T, out=best)
        yield rows, best


def _directions(values: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = values.reshape(len(values), -1)
    directions: NDArray[np.float32] = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)
    return directions
