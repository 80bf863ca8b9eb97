"""Draw where the network looked: how much less sure of its class it is when a part of the image is hidden.

Occlusion sensitivity (Zeiler and Fergus 2014, doi 10.1007/978-3-319-10590-1_53): it asks the network and
never looks into it, so it is the same for every runtime. It says where the network looked, and not why.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

#: A hidden window has a quarter of the image's side, and moves by half of its own: 49 of them.
_WINDOW_SHARE = 4
_STEPS_A_WINDOW = 2
#: A loss of log-odds under this is drawn paler: noise is not to look like an answer.
_FULL_COLOUR = 1.0
#: The longer side of a heat map, in pixels.
_LONGEST_SIDE = 512
#: From where hiding matters a little to where it matters most: dark red, orange, yellow.
_RAMP = np.array([[128, 0, 38], [227, 26, 28], [253, 141, 60], [255, 237, 160]], np.float64)
_MOST_OPAQUE = 200
_DESCRIPTION = "Where the network looked, not why. Research use only, not for diagnostic use."

#: From inputs (n, height, width, 3), uint8, to logits (n, classes).
Forward = Callable[[NDArray[np.uint8]], NDArray[np.floating]]


def occlusion(forward: Forward, tensor: NDArray[np.uint8], class_index: int) -> NDArray[np.float64]:
    """Return how much each part speaks for a class, in nats of log-odds, shape (cells, cells).

    A cell holds the mean of what was lost over the hidden windows that cover it; below 0 it speaks against.
    `tensor` is one input of the network, shape (side, side, 3), with a side of 8 pixels or more.
    """
    cells = _WINDOW_SHARE * _STEPS_A_WINDOW
    edges = np.linspace(0, tensor.shape[0], cells + 1).round().astype(int)
    corners = [
        (row, column)
        for row in range(cells - _STEPS_A_WINDOW + 1)
        for column in range(cells - _STEPS_A_WINDOW + 1)
    ]
    hidden = np.repeat(tensor[np.newaxis], len(corners) + 1, axis=0)
    for number, (row, column) in enumerate(corners):
        rows = slice(edges[row], edges[row + _STEPS_A_WINDOW])
        columns = slice(edges[column], edges[column + _STEPS_A_WINDOW])
        hidden[number, rows, columns] = tensor.mean(axis=(0, 1)).round()
    odds = _log_odds(forward(hidden), class_index)
    lost, covered = np.zeros((cells, cells)), np.zeros((cells, cells))
    for (row, column), loss in zip(corners, odds[-1] - odds[:-1], strict=True):
        lost[row : row + _STEPS_A_WINDOW, column : column + _STEPS_A_WINDOW] += loss
        covered[row : row + _STEPS_A_WINDOW, column : column + _STEPS_A_WINDOW] += 1
    heat: NDArray[np.float64] = lost / covered
    return heat


def draw(heat: NDArray[np.float64], width: int, height: int) -> bytes:
    """Return a PNG to lay over an image of this size: transparent where nothing speaks for the class."""
    strength = np.clip(heat, 0, None) / max(float(heat.max(initial=0)), _FULL_COLOUR)
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(smooth, np.float64), 0, 1)
    at = np.linspace(0, 1, len(_RAMP))
    channels = [np.interp(values, at, _RAMP[:, channel]) for channel in range(3)]
    pixels = np.stack([*channels, values * _MOST_OPAQUE], axis=-1).round().astype(np.uint8)
    notes = PngInfo()
    notes.add_text("Description", _DESCRIPTION)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG", pnginfo=notes)
    return file.getvalue()


def _log_odds(logits: NDArray[np.floating], class_index: int) -> NDArray[np.float64]:
    """Return the log-odds of one class against all others, shape (n,); they move where a probability is 1."""
    values = logits.astype(np.float64)
    others = np.delete(values, class_index, axis=1)
    peak = others.max(axis=1)
    odds: NDArray[np.float64] = (
        values[:, class_index] - peak - np.log(np.exp(others - peak[:, np.newaxis]).sum(axis=1))
    )
    return odds
