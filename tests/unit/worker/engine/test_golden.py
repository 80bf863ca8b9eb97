"""A loaded model must still give its published answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.errors import InvalidModel
from shared.manifest import Manifest
from worker.engine.golden import check_golden

EXPECTED = np.array([0.7, 0.2, 0.1])


class FakeModel:
    """Answers every image with the logarithm of the same probabilities."""

    def __init__(self, probabilities: NDArray[np.float64]) -> None:
        self.logits = np.log(probabilities).astype(np.float32)

    def predict(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the same logits for every image."""
        return np.tile(self.logits, (len(batch), 1)), np.zeros((len(batch), 1), np.float32)


@pytest.fixture
def folder(tmp_path: Path, tissue: NDArray[np.uint8], png: Callable[[NDArray[np.uint8]], bytes]) -> Path:
    (tmp_path / "golden-0.png").write_bytes(png(tissue))
    return tmp_path


def test_the_published_answers_pass(manifest: Manifest, folder: Path) -> None:
    """Equal within the tolerance is equal."""
    check_golden(FakeModel(EXPECTED + np.array([0.0005, -0.0005, 0.0])), manifest, folder)


@pytest.mark.parametrize(
    "received",
    [EXPECTED + np.array([0.002, -0.002, 0.0]), EXPECTED[::-1]],
    ids=["drifted", "swapped classes"],
)
def test_another_answer_is_an_invalid_model(
    manifest: Manifest, folder: Path, received: NDArray[np.float64]
) -> None:
    """The operator reads what was expected and what came."""
    with pytest.raises(InvalidModel, match=r"Expected probabilities \(0.70000, .* Received: "):
        check_golden(FakeModel(received), manifest, folder)


def test_an_answer_that_is_not_finite_is_an_invalid_model(manifest: Manifest, folder: Path) -> None:
    """NaN compares with nothing, so it must not slip through."""
    model = FakeModel(EXPECTED)
    model.logits = np.full(3, np.nan, np.float32)
    with pytest.raises(InvalidModel, match="nan"):
        check_golden(model, manifest, folder)


@pytest.mark.parametrize("content", [None, b"no image"], ids=["missing", "corrupt"])
def test_an_unreadable_golden_tile_is_an_invalid_model(
    manifest: Manifest, folder: Path, content: bytes | None
) -> None:
    """A version without its proof is not used."""
    path = folder / "golden-0.png"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InvalidModel, match=r"Expected a readable golden tile golden-0\.png"):
        check_golden(FakeModel(EXPECTED), manifest, folder)
