"""What an upload is, by its header alone: type and size, without decoding a pixel."""

import threading
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, cast

from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from shared.errors import ImageTooLarge, InvalidImage, Unavailable, UnsupportedImageFormat
from shared.image_bounds import (
    JPEG,
    PNG,
    SIGNATURES,
    TIFF,
    BoundedFile,
    check_scans,
    check_smallest,
    check_tiff,
)

# The classes and not `Image.open`: its bomb check is a limit of the whole process and partly only a warning.
_READERS: dict[str, type[ImageFile.ImageFile]] = {JPEG: JpegImageFile, PNG: PngImageFile, TIFF: TiffImageFile}
#: The last marker of a JPEG; inside its pixel data these two bytes never stand side by side.
_JPEG_END = b"\xff\xd9"
#: The last chunk of a PNG, with its checksum.
_PNG_END = b"IEND\xaeB`\x82"
#: A PNG may unpack up to 64 MB of text before its pixels, so only a few headers are read at the same time.
_READING = threading.BoundedSemaphore(4)
#: Longer than so many seconds nobody waits for that: each takes a fraction of one.
LONGEST_TURN_SECONDS = 2.0


@dataclass(frozen=True)
class ImageHeader:
    """What the header states; width and height in pixels."""

    width: int
    height: int
    media_type: str


def read_header(file: BinaryIO, max_pixels: int) -> ImageHeader:
    """Return type and size of the image in a seekable file, wherever that stands.

    Raises:
        UnsupportedImageFormat: if the content is no JPEG, PNG or TIFF.
        ImageTooLarge: if width times height is over `max_pixels`.
        InvalidImage: if it is empty or tiny, its header is broken or endless, its pixels would be decoded
            over and over, or the file ends too early.
        Unavailable: if too many other headers are being read.
    """
    media_type = _media_type(file)
    if not _READING.acquire(timeout=LONGEST_TURN_SECONDS):
        raise Unavailable("Too many images are being looked at. Nothing was accepted; send it again.")
    try:
        image = _parsed(file, media_type)
        behind_header = file.tell()
        is_whole = bool(image.tile) and _is_whole(image, file, media_type)
    # Broken files raise almost anything, a bare ValueError and a TypeError included.
    except Exception as error:
        raise InvalidImage(
            f"Expected a whole {media_type} file. Its header cannot be read; export the tile again."
        ) from error
    finally:
        _READING.release()
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"Expected at most {max_pixels} pixels (width times height). "
            f"The header states {width} x {height}; send a smaller tile."
        )
    check_smallest(width, height)
    if media_type == JPEG:
        file.seek(behind_header)
        check_scans(file, width * height)
    if not is_whole:
        raise InvalidImage(f"Expected a whole {media_type} file. It ends too early; send it again.")
    return ImageHeader(width, height, media_type)


def _media_type(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(8)
    if not start:
        raise InvalidImage("Expected an image. Received: 0 bytes")
    for signature, media_type in SIGNATURES.items():
        if start.startswith(signature):
            return media_type
    raise UnsupportedImageFormat("Expected a JPEG, PNG or TIFF image. The content is none of them.")


def _parsed(file: BinaryIO, media_type: str) -> ImageFile.ImageFile:
    file.seek(0)
    if media_type == TIFF:
        check_tiff(file)
    # It has what Pillow calls of a file.
    bounded = cast(BinaryIO, BoundedFile(file, is_tiff=media_type == TIFF))
    return _READERS[media_type](bounded)


def _is_whole(image: ImageFile.ImageFile, file: BinaryIO, media_type: str) -> bool:
    """Tell whether the file goes on to its end, as far as that shows without decoding."""
    # Reading the header stopped where the pixel data begin; what stands before may have an end of its own.
    if media_type == JPEG:
        return _goes_on_to(file, _JPEG_END)
    if media_type == PNG:
        return _goes_on_to(file, _PNG_END)
    return _tiff_is_whole(image, file)


def _goes_on_to(file: BinaryIO, needle: bytes) -> bool:
    carried = b""
    while block := file.read(65_536):
        if needle in carried + block:
            return True
        carried = block[1 - len(needle) :]
    return False


def _tiff_is_whole(image: ImageFile.ImageFile, file: BinaryIO) -> bool:
    """Every strip or tile that the first page lists lies inside the file."""
    tags = image.tag_v2  # type: ignore[attr-defined]  # only TiffImageFile has it
    offsets = tags.get(273, ()) or tags.get(324, ())
    lengths = tags.get(279, ()) or tags.get(325, ())
    size = file.seek(0, 2)
    return all(offset + length <= size for offset, length in zip(offsets, lengths, strict=False))


def is_whole_png(png: bytes) -> bool:
    """Tell whether these are a PNG's chunks up to its end, each with its checksum."""
    try:
        PngImageFile(BytesIO(png)).verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return True
