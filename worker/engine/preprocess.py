"""Turn a decoded image into the model's input, as the manifest's input spec says.

One antialiased resize of the whole image, straight to the input size: every input pixel then covers the same
area of tissue whether the field came as 224 or as 768 pixels. `reducing_gap` stays off, since its shortcut
changes values with the upload's size; a JPEG's own reduction is the manifest's choice. Scaling of values is a
layer of the model.
"""

from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.manifest import InputSpec
from worker.engine.quality import MEASURED_SIDE

_FILTERS: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


def least_side(spec: InputSpec) -> int | None:
    """Return the pixels that a decoder has to leave a JPEG's sides; None where it is not to reduce any."""
    if spec.draft is None:
        return None
    return ceil(spec.draft * max(spec.width, spec.height, MEASURED_SIDE))


def preprocess(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Return an array of shape (spec.height, spec.width, 3), values 0 to 255.

    `image` has shape (height, width, 3). An image that is not of the spec's proportions is stretched to
    them: no part of the upload is left out unseen.

    Raises:
        ValueError: if `image` is no RGB array.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"Expected uint8 of shape (height, width, 3). Received: {image.dtype} {image.shape}")
    return resize(Image.fromarray(image), spec)


def preprocess_measured(picture: Image.Image, view: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Return what `preprocess` does, without a second resize where a model takes what the gates measure.

    `view` is what `worker.engine.quality.resize_for_measuring` made of the picture.
    """
    if (spec.width, spec.height, spec.resample) == (MEASURED_SIDE, MEASURED_SIDE, "bicubic"):
        return view
    return resize(picture, spec)


def resize(picture: Image.Image, spec: InputSpec) -> NDArray[np.uint8]:
    """Return an array of shape (spec.height, spec.width, 3) of a picture in red, green and blue."""
    resized = picture.resize((spec.width, spec.height), resample=_FILTERS[spec.resample], reducing_gap=None)
    return np.array(resized, dtype=np.uint8)
