"""A decoded image becomes the model's input, whatever size it came in."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.manifest import InputSpec
from worker.engine.preprocess import least_side, preprocess

SPEC = InputSpec(width=96, height=64, resample="bicubic")


def smooth_field(side: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(7).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return np.array(Image.fromarray(random).resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("shape", [(224, 224, 3), (50, 31, 3), (16, 900, 3), (64, 96, 3)])
def test_every_image_gets_the_specs_shape(shape: tuple[int, ...]) -> None:
    """Height and width are the spec's, in this order, and values stay bytes."""
    received = preprocess(np.full(shape, 90, np.uint8), SPEC)
    assert received.shape == (64, 96, 3)
    assert received.dtype == np.uint8
    assert (received == 90).all()


def test_an_image_of_the_right_size_is_left_alone() -> None:
    """A resize to the same size changes no pixel."""
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    np.testing.assert_array_equal(preprocess(image, SPEC), image)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "box", "lanczos"])
def test_fine_detail_is_averaged_and_not_picked(resample: str) -> None:
    """The resize is antialiased: a chequerboard of single pixels becomes grey."""
    board = np.zeros((768, 768, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    received = preprocess(board, InputSpec(width=128, height=128, resample=resample))
    assert np.abs(received.astype(int) - 127).max() <= 4


def test_one_field_gives_nearly_one_input_at_224_and_768_pixels() -> None:
    """The same tissue in two sizes differs by rounding, not by structure."""
    spec = InputSpec(width=128, height=128, resample="bicubic")
    small = preprocess(smooth_field(224), spec).astype(int)
    large = preprocess(smooth_field(768), spec).astype(int)
    assert np.abs(small - large).mean() < 1.0


@pytest.mark.parametrize(
    ("width", "height", "draft", "side"),
    [
        (224, 224, None, None),
        (224, 224, 1.5, 336),
        (300, 200, 1.5, 450),
        (96, 96, 1.0, 224),
        (225, 9, 1.1, 248),
        (9, 225, 1.1, 248),
    ],
)
def test_a_decoder_leaves_what_model_and_gates_need(
    width: int, height: int, draft: float | None, side: int | None
) -> None:
    """The gates measure 224 pixels, whatever the model takes."""
    spec = InputSpec(width=width, height=height, resample="bicubic", draft=draft)
    assert least_side(spec) == side


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3), np.float32)]
)
def test_anything_but_an_rgb_array_is_refused(image: NDArray[np.uint8]) -> None:
    """The caller is told the shape and type that came."""
    with pytest.raises(ValueError, match="Expected uint8 of shape"):
        preprocess(image, SPEC)
