"""Turn the bytes of one upload into an upright RGB array, or say exactly why that is impossible.

Decided on purpose, and tested:

- Content decides, never a declared type; only JPEG, PNG and TIFF parsers are ever tried.
- Of an animated PNG or a TIFF with several pages, the first picture is used: in a slide pyramid and in a
  scanner's stack that is the full-size image.
- The EXIF orientation is applied. Everything else beside the pixels (ICC profile, text, EXIF) is dropped:
  it may hold patient data, and the model was trained on pixels as they are stored.
- What is transparent becomes white, the colour of an empty slide.
- Grey levels of more than 8 bits are scaled down by their range, never clipped.
"""

import threading
import warnings
from io import BytesIO
from typing import BinaryIO, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from shared.errors import HistoQueueError, ImageTooLarge, InvalidImage, UnsupportedImageFormat
from shared.image_bounds import SIGNATURES, BoundedFile, check_scans, check_smallest, check_tiff

#: Pillow has some 40 more parsers; none of them is ever given a stranger's bytes.
FORMATS: Final = ("JPEG", "PNG", "TIFF")
_ORIENTATION_TAG: Final = 0x0112
#: Those that lay the image on its side.
_SIDEWAYS: Final = (5, 6, 7, 8)
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP_GREY_MODES: Final = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})


class Decoded(NamedTuple):
    """An image upright and in red, green and blue of 8 bits each, and the size of what was uploaded."""

    picture: Image.Image
    #: In pixels, upright; the picture has less where a JPEG was reduced.
    width: int
    height: int


def decode(data: bytes, max_pixels: int, least_side: int | None = None) -> NDArray[np.uint8]:
    """Return the image as an array of shape (height, width, 3), red, green and blue from 0 to 255.

    Limits and errors are those of `decode_picture`.
    """
    return np.array(decode_picture(data, max_pixels, least_side).picture, dtype=np.uint8)


def decode_picture(data: bytes, max_pixels: int, least_side: int | None = None) -> Decoded:
    """Return the image for who resizes it next.

    `max_pixels` limits width times height and is checked on the header, before any pixel is decoded.
    Pillow's own limit (about 89 million) holds as well, whatever is passed. With a `least_side` a JPEG is
    decoded at a half, a quarter or an eighth of its size, the least that leaves both sides so many pixels:
    libjpeg takes the average of pixels out of its frequencies, which costs less than the pixels do.

    Raises:
        UnsupportedImageFormat: if the content is no JPEG, PNG or TIFF.
        ImageTooLarge: if the header states more than `max_pixels`.
        InvalidImage: if it is empty, truncated, corrupt, too small, of a kind that cannot become RGB, or made
            to be decoded over and over.
    """
    with _FILTERS:
        try:
            return _decode(data, max_pixels, least_side)
        except HistoQueueError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageTooLarge(f"Expected at most {max_pixels} pixels. Received: many more.") from error
        except (
            Exception
        ) as error:  # a hostile file raises anything: SyntaxError, struct.error, bare ValueError
            raise _refusal(data) from error


class _Filters:
    """How warnings are taken while any thread decodes.

    The filters are the whole process': a thread that took them back would take them from the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoding = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._decoding += 1
            if self._decoding == 1:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")  # Pillow warns of damaged metadata, which is dropped anyway
                warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._decoding -= 1
            if self._decoding == 0:
                self._before.__exit__(None, None, None)


_FILTERS: Final = _Filters()


def _decode(data: bytes, max_pixels: int, least_side: int | None) -> Decoded:
    # Pillow takes more beginnings for a TIFF's than there are.
    is_tiff = data.startswith((b"II", b"MM"))
    if is_tiff:
        check_tiff(BytesIO(data))
    source = BytesIO(data)
    file = BoundedFile(source, is_tiff)
    # It has what Pillow calls of a file.
    with Image.open(cast(BinaryIO, file), formats=FORMATS) as image:
        width, height = image.size
        _check_size(width, height, max_pixels)
        if image.format in ("JPEG", "MPO"):
            check_scans(source, width * height)
            if least_side:
                image.draft(None, (least_side, least_side))
        file.allow_pixels(len(data))
        image.load()
        orientation = _orientation(image)
        if orientation in _SIDEWAYS:
            width, height = height, width
        return Decoded(_upright(_to_rgb(image), orientation), width, height)


def _refusal(data: bytes) -> HistoQueueError:
    """Name the fact without Pillow's own words: they quote memory addresses and the file's content."""
    if not data:
        return InvalidImage("Expected a JPEG, PNG or TIFF image. Received: 0 bytes.")
    if data.startswith(tuple(SIGNATURES)):
        return InvalidImage("Expected a complete image. Received one that is truncated or damaged.")
    return UnsupportedImageFormat("Expected a JPEG, PNG or TIFF image. Received content of another kind.")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(f"Expected at most {max_pixels} pixels. Received: {width} x {height}.")
    check_smallest(width, height)


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # noqa: BLE001  # damaged EXIF raises anything, and says nothing about the pixels
        return None


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_GREY_MODES:
        return _deep_grey_to_rgb(image)
    if image.has_transparency_data:
        return _over_white(image.convert("RGBA"))
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO"):
        image = _true_inks(image)
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


def _true_inks(image: Image.Image) -> Image.Image:
    """Undo an inversion that Pillow applies to every CMYK JPEG; only Adobe's own are stored inverted."""
    return image if "adobe" in image.info else ImageChops.invert(image)


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    grey = np.asarray(image).astype(np.float64)
    if not np.isfinite(grey).all():
        raise InvalidImage("Expected finite grey levels. Received an image with NaN or infinite ones.")
    low, high = _grey_range(grey, image.mode)
    scaled = np.round((grey - low) * (255.0 / (high - low)))
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")


def _grey_range(grey: NDArray[np.float64], mode: str) -> tuple[float, float]:
    """Return what is black and what is white: the customary full scale, or the image's own extremes."""
    scales = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0,)
    low, high = float(grey.min()), float(grey.max())
    for scale in scales:
        if low >= 0 and high <= scale:
            return 0.0, scale
    return low, max(high, low + 1.0)
