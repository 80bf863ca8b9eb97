"""A manifest of a small model and tiles that are drawn in a line."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.manifest import Manifest

IDENTITY = [[float(row == column) for column in range(6)] for row in range(6)]
#: Mean and SD of red, green and blue of `tissue()` below.
TISSUE_COLOUR = [190.0, 120.0, 180.0, 23.0, 23.0, 23.0]


@pytest.fixture
def manifest() -> Manifest:
    """Return a manifest of three classes, an 8 x 8 input and the default gates."""
    classes = [("lung_n", False), ("lung_aca", True), ("lung_scc", True)]
    return Manifest.model_validate(
        {
            "name": "test-cnn",
            "version": "0.0.1",
            "created_at": "2026-01-01T00:00:00Z",
            "licence": "none",
            "intended_use": "tests",
            "weights": "model.keras",
            "logits_layer": "logits",
            "features_layer": "features",
            "classes": [{"name": name, "label": f"Label {name}", "malignant": bad} for name, bad in classes],
            "input": {"width": 8, "height": 8, "resample": "bicubic"},
            "temperature": 1.0,
            "indeterminate_below": 0.6,
            "gates": {
                "background_level": 220,
                "background_reject": 0.5,
                "background_warn": 0.25,
                "sharpness_low": 60.0,
                "sharpness_high": 100_000.0,
                "domain_distance": 30.0,
                "colour": [
                    {"class_name": name, "mean": TISSUE_COLOUR, "inverse_covariance": IDENTITY}
                    for name, _ in classes
                ],
            },
            "golden": [{"file": "golden-0.png", "probabilities": [0.7, 0.2, 0.1]}],
            "golden_tolerance": 0.001,
            "files": [
                {"name": name, "bytes": 1, "sha256": "0" * 64} for name in ("model.keras", "golden-0.png")
            ],
            "metrics": {},
            "training": {},
        }
    )


@pytest.fixture
def tissue() -> NDArray[np.uint8]:
    """Return a sharp, pink, 224 x 224 image that no gate objects to."""
    random = np.random.default_rng(5)
    pixels = np.array([190, 120, 180]) + random.integers(-40, 41, (224, 224, 3))
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture
def png() -> Callable[[NDArray[np.uint8]], bytes]:
    """Return a function from pixels to the bytes of a PNG."""

    def encode(pixels: NDArray[np.uint8]) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    return encode
