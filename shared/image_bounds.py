"""Which images are looked at at all, and how far: Pillow parses a header in Python, step by step.

What is over a bound raises ValueError, which no parser of Pillow takes for the end of a format.
"""

import struct
from typing import BinaryIO

from shared.errors import InvalidImage

JPEG, PNG, TIFF = "image/jpeg", "image/png", "image/tiff"
#: How a file of each kind begins.
SIGNATURES = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": PNG,
    b"II*\x00": TIFF,
    b"MM\x00*": TIFF,
    b"II+\x00": TIFF,
    b"MM\x00+": TIFF,
}
#: Fewer pixels than 32 x 32, or a side of less than 16, show no tissue that a tile model could judge.
MIN_PIXELS = 32 * 32
MIN_SIDE_PIXELS = 16
#: An honest header is read in some hundred steps; one of nothing but markers or empty chunks takes millions.
MOST_READS = 10_000
#: Some MB of EXIF, ICC profile and XMP fit. A TIFF may keep layers in its tags, which are read in one step.
MOST_HEADER_BYTES = 16_000_000
#: Behind the header, chunks of pixels may be small, and not next to nothing.
FEWEST_BYTES_A_READ = 64
#: Tags of a TIFF, and numbers in one of them: each of these becomes an object.
MOST_TAGS = 4_096
MOST_VALUES = 65_536
#: A scan of a JPEG may be thirty bytes that have its decoder pass over the whole picture once more; an honest
#: file has a dozen. So many are taken of any size, and more of a picture that is passed over in no time.
FEWEST_SCANS = 30
MOST_SCANNED_PIXELS = 800_000_000
_SCAN = b"\xff\xda"
_BLOCK_BYTES = 65_536
#: Tiles of a TIFF are decoded whole: what they cover, in pictures, and in pixels where the picture is small.
MOST_COVERED = 4
FEWEST_COVERED_PIXELS = 4096 * 4096
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
#: SHORT and LONG, as the format has it for these four.
_NUMBERS = {3: "H", 4: "L"}
#: BYTE, ASCII, SBYTE and UNDEFINED stay the bytes that they are.
_UNPARSED = frozenset({1, 2, 6, 7})


class BoundedFile:
    """A seekable file that may be read in so many steps, and so many bytes of it."""

    def __init__(self, file: BinaryIO, is_tiff: bool) -> None:
        """Allow what an image's header may take."""
        self._file = file
        self._reads_left = MOST_READS
        self._bytes_left: int | None = None if is_tiff else MOST_HEADER_BYTES

    def allow_pixels(self, size: int) -> None:
        """Allow what the rest of a file of this size may take."""
        self._reads_left += size // FEWEST_BYTES_A_READ
        self._bytes_left = None

    def read(self, size: int = -1) -> bytes:
        """Read, unless that was too often or too much.

        Raises:
            ValueError: if it was.
        """
        self._reads_left -= 1
        data = self._file.read(size)
        if self._bytes_left is not None:
            self._bytes_left -= len(data)
        if self._reads_left < 0 or (self._bytes_left is not None and self._bytes_left < 0):
            raise ValueError("Expected an image whose header is read in a moment. This one goes on.")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the present place."""
        return self._file.tell()


def check_smallest(width: int, height: int) -> None:
    """Return if an image of this size could show something.

    Raises:
        InvalidImage: if it could not.
    """
    if width * height < MIN_PIXELS or min(width, height) < MIN_SIDE_PIXELS:
        raise InvalidImage(
            f"Expected at least {MIN_PIXELS} pixels and {MIN_SIDE_PIXELS} a side."
            f" Received: {width} x {height}."
        )


def check_scans(file: BinaryIO, pixels: int) -> None:
    """Return if the scans of a JPEG of so many pixels are few enough; the file stands behind its header.

    Raises:
        InvalidImage: if they are not.
    """
    # Inside pixel data these two bytes never stand side by side; the first scan may be behind already.
    scans, carried = 1, b""
    while block := file.read(_BLOCK_BYTES):
        scans += (carried + block).count(_SCAN)
        carried = block[-1:]
    most = max(FEWEST_SCANS, MOST_SCANNED_PIXELS // pixels)
    if scans > most:
        raise InvalidImage(
            f"Expected a JPEG of this size in at most {most} scans. Received: {scans}. Export the tile again."
        )


def check_tiff(file: BinaryIO) -> None:
    """Return if the first page of a TIFF has tags, numbers and tiles in bounds; leaves the file at its start.

    Raises:
        ValueError: if it has not.
        struct.error: if it ends before its tags do.
    """
    file.seek(0)
    head = file.read(16)
    order = ">" if head.startswith(b"MM") else "<"
    # As Pillow tells the two formats apart.
    is_big = head[2:3] == b"+"
    count_form, tag_form = (f"{order}Q", f"{order}HHQ8s") if is_big else (f"{order}H", f"{order}HHL4s")
    file.seek(struct.unpack_from(f"{order}Q" if is_big else f"{order}L", head, 8 if is_big else 4)[0])
    (tags,) = struct.unpack(count_form, file.read(struct.calcsize(count_form)))
    if tags > MOST_TAGS:
        raise ValueError(f"Expected at most {MOST_TAGS} tags. Received: {tags}")
    sizes: dict[int, list[int]] = {tag: [] for tag in (_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT)}
    for tag, kind, values, field in struct.iter_unpack(tag_form, file.read(tags * struct.calcsize(tag_form))):
        if kind not in _UNPARSED and values > MOST_VALUES:
            raise ValueError(f"Expected at most {MOST_VALUES} numbers in a tag. Received: {values}")
        if tag in sizes:
            is_number = kind in _NUMBERS and values == 1
            sizes[tag] += struct.unpack_from(order + _NUMBERS[kind], field) if is_number else (0,)
    if sizes[_TILE_WIDTH] or sizes[_TILE_HEIGHT]:
        _check_tiles([number for numbers in sizes.values() for number in numbers])
    file.seek(0)


def _check_tiles(sizes: list[int]) -> None:
    """Return if a TIFF's tiles cover little more than its picture; `sizes` are two sides of each."""
    if len(sizes) != 4 or 0 in sizes:
        raise ValueError("Expected one width and one height of a TIFF's picture and of its tiles.")
    width, height, tile_width, tile_height = sizes
    covered = -(-width // tile_width) * tile_width * -(-height // tile_height) * tile_height
    if covered > max(MOST_COVERED * width * height, FEWEST_COVERED_PIXELS):
        raise ValueError(f"Expected tiles for {width} x {height}. Received: {tile_width} x {tile_height}")
