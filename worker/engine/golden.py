"""Prove that a loaded model still gives the answers that it gave when it was published."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import HistoQueueError, InvalidModel
from shared.manifest import GoldenTile, Manifest
from worker.engine.calibration import calibrate
from worker.engine.decode import decode
from worker.engine.pipeline import Model
from worker.engine.preprocess import preprocess

#: Golden tiles are our own drawings of a few hundred pixels a side.
_MAX_PIXELS: Final = 2048 * 2048


def check_golden(predictor: Model, manifest: Manifest, folder: Path) -> None:
    """Run every golden tile in `folder` through decode, preprocess, model and calibration, and compare.

    A swapped class order, other weights or a broken decoder all show here, before a job is burned on them.

    Raises:
        InvalidModel: if a tile cannot be read, or a probability is not finite or differs by more than the
            manifest's tolerance.
    """
    received = golden_probabilities(predictor, manifest, folder)
    for tile, row in zip(manifest.golden, received, strict=True):
        _check(tile, row, manifest.golden_tolerance)


def golden_probabilities(predictor: Model, manifest: Manifest, folder: Path) -> NDArray[np.float64]:
    """Return what the model gives for the golden tiles now, shape (tiles, classes).

    Raises:
        InvalidModel: if a tile cannot be read.
    """
    batch = np.stack([preprocess(_read(folder, tile), manifest.input) for tile in manifest.golden])
    logits, _ = predictor.predict(batch)
    return calibrate(logits, manifest.temperature)


def _read(folder: Path, tile: GoldenTile) -> NDArray[np.uint8]:
    try:
        return decode((folder / tile.file).read_bytes(), _MAX_PIXELS)
    except (OSError, HistoQueueError) as error:
        raise InvalidModel(f"Expected a readable golden tile {tile.file}. Received: {error}") from error


def _check(tile: GoldenTile, received: NDArray[np.float64], tolerance: float) -> None:
    difference = np.abs(received - np.array(tile.probabilities)).max()
    if not difference <= tolerance:  # NaN differs from everything
        raise InvalidModel(
            f"Expected probabilities {_text(tile.probabilities)} for {tile.file}, within {tolerance}."
            f" Received: {_text(tuple(received.tolist()))}"
        )


def _text(probabilities: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.5f}" for value in probabilities) + ")"
