"""A heat map shows what the answer rests on, and nothing else."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from worker.engine.heatmap import draw, occlusion

SIDE = 64


def looks_at(rows: slice, columns: slice) -> Any:
    """Return a network whose second class is as likely as one part of the image is dark."""

    def forward(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        darkness = (255 - batch[:, rows, columns].astype(np.float32)).mean(axis=(1, 2, 3)) / 25
        return np.stack([np.zeros_like(darkness), darkness, np.zeros_like(darkness)], axis=1)

    return forward


@pytest.fixture
def tensor() -> NDArray[np.uint8]:
    """White, with a dark square in the lower left corner."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[48:, :16] = 0
    return pixels


def test_what_the_answer_rests_on_is_hot(tensor: NDArray[np.uint8]) -> None:
    """Hiding the corner that the network looks at costs it its class; hiding any other part does not."""
    heat = occlusion(looks_at(slice(48, 64), slice(0, 16)), tensor, 1)
    assert np.unravel_index(heat.argmax(), heat.shape) == (7, 0)
    assert heat[7, 0] > 3
    np.testing.assert_allclose(heat[:5], 0, atol=1e-6)
    np.testing.assert_allclose(heat[:, 3:], 0, atol=1e-6)


def test_what_speaks_against_the_class_is_cold(tensor: NDArray[np.uint8]) -> None:
    """The same part counts the other way for another class."""
    heat = occlusion(looks_at(slice(48, 64), slice(0, 16)), tensor, 0)
    assert heat[7, 0] < -1


def test_an_answer_that_is_certain_has_a_heat_map_too(tensor: NDArray[np.uint8]) -> None:
    """With a probability of 1 that no hidden part moves, the odds still do."""
    forward = looks_at(slice(48, 64), slice(0, 16))
    heat = occlusion(lambda batch: 1000 + 10 * forward(batch), tensor, 1)
    assert np.isfinite(heat).all()
    assert heat[7, 0] > 30


def test_every_part_is_hidden_as_often_as_it_counts() -> None:
    """A network that looks everywhere alike gives an even heat map."""
    tensor = np.zeros((SIDE, SIDE, 3), np.uint8)
    tensor[::2] = 255
    calls = []

    def forward(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        calls.append(len(batch))
        uneven = np.abs(np.diff(batch.astype(np.float32), axis=1)).mean(axis=(1, 2, 3)) / 25
        return np.stack([uneven, np.zeros_like(uneven)], axis=1)

    heat = occlusion(forward, tensor, 0)
    assert calls == [50]
    assert heat.min() > 0
    assert heat.max() / heat.min() < 1.2


def test_a_picture_has_the_images_shape_and_says_what_it_is(tensor: NDArray[np.uint8]) -> None:
    """Transparent where nothing speaks for the class; at most 512 pixels wide or high."""
    heat = occlusion(looks_at(slice(48, 64), slice(0, 16)), tensor, 1)
    picture = Image.open(io.BytesIO(draw(heat, 1000, 500)))
    assert (picture.size, picture.mode) == ((512, 256), "RGBA")
    assert picture.getpixel((5, 250))[3] > 150  # type: ignore[index]
    assert picture.getpixel((500, 5))[3] == 0  # type: ignore[index]
    assert "not for diagnostic use" in picture.text["Description"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 5000)])
def test_a_thin_image_has_a_picture_too(width: int, height: int) -> None:
    """No side is ever 0."""
    picture = Image.open(io.BytesIO(draw(np.ones((8, 8)), width, height)))
    assert min(picture.size) == 1


def test_noise_is_not_drawn_as_an_answer() -> None:
    """A tenth of a nat is nearly nothing, also where it is the most there is."""
    faint = Image.open(io.BytesIO(draw(np.full((8, 8), 0.1), 64, 64)))
    assert max(faint.getchannel("A").getextrema()) < 30  # type: ignore[type-var]
    against = Image.open(io.BytesIO(draw(np.full((8, 8), -2.0), 64, 64)))
    assert against.getchannel("A").getextrema() == (0, 0)
