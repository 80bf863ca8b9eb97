"""One uploaded image out of a request's body, limited in bytes while it streams in."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from werkzeug.exceptions import RequestEntityTooLarge

from api.body import BLOCK_BYTES, UploadRequest
from api.images import read_header
from shared.errors import InvalidRequest, RequestTooLarge, UnsupportedImageFormat
from shared.settings import Settings

#: The one field that carries the image.
FIELD = "file"


@dataclass(frozen=True)
class ImageUpload:
    """An image that was received whole and whose header is sound; width and height in pixels."""

    file: BinaryIO
    sha256: str
    bytes: int
    width: int
    height: int
    media_type: str


@contextmanager
def received_image(request: UploadRequest, settings: Settings) -> Iterator[ImageUpload]:
    """Read the request's body; its file is closed at the end of the block.

    Raises:
        InvalidRequest: if the body has no `file`, more than one, or breaks off.
        RequestTooLarge: as soon as it is over `max_image_bytes`.
        UnsupportedImageFormat: if it is declared, or turns out to be, something else than an image.
        ImageTooLarge: if the header states more than `max_image_pixels`.
        InvalidImage: if it is empty, broken or cut short.
    """
    if request.mimetype == "multipart/form-data":
        file = _form_file(request, settings.max_image_bytes)
    elif request.mimetype.startswith("image/") or request.mimetype in ("", "application/octet-stream"):
        file = _raw_file(request, settings.max_image_bytes)
    else:
        raise UnsupportedImageFormat(
            "Expected multipart/form-data, or an image as image/jpeg, image/png or image/tiff. "
            f"Received: {request.mimetype[:80]!r}"
        )
    with file:
        yield checked_image(file, settings)


def checked_image(file: BinaryIO, settings: Settings) -> ImageUpload:
    """Return the image in a seekable file.

    Raises:
        RequestTooLarge, UnsupportedImageFormat, ImageTooLarge, InvalidImage: as `received_image`.
    """
    sha256, size = _digest(file, settings.max_image_bytes)
    header = read_header(file, settings.max_image_pixels)
    return ImageUpload(file, sha256, size, header.width, header.height, header.media_type)


def _form_file(request: UploadRequest, max_bytes: int) -> BinaryIO:
    try:
        files = list(request.files.items(multi=True))
    except RequestEntityTooLarge:
        if _is_over_limit(request):
            raise too_large(max_bytes) from None
        raise InvalidRequest(f"Expected one {FIELD} and a few short options. Received: more") from None
    # A part may have no name at all.
    names = [name or "" for name, _ in files]
    if names != [FIELD]:
        received = ", ".join(repr(name[:40]) for name in names) or "no file, or a form that breaks off"
        raise InvalidRequest(
            f"Expected a form with exactly one file, in the field {FIELD!r}. Received: {received}"
        )
    return cast(BinaryIO, files[0][1].stream)


def _is_over_limit(request: UploadRequest) -> bool:
    """Tell the body's own limit from those of its parts, which Werkzeug reports alike."""
    limit = request.max_content_length or 0
    return (request.content_length or request.stream.tell()) >= limit


def _raw_file(request: UploadRequest, max_bytes: int) -> BinaryIO:
    file = request.spooled(max_bytes, too_large(max_bytes))
    if not request.mimetype and not file.read(1):
        raise InvalidRequest("Expected an image, in a form or as the body. Received: no body")
    return file


def _digest(file: BinaryIO, max_bytes: int) -> tuple[str, int]:
    """Return sha256 and size; a form's file may be over the limit by what its frame left unused."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
    if file.tell() > max_bytes:
        raise too_large(max_bytes)
    return digest.hexdigest(), file.tell()


def too_large(max_bytes: int) -> RequestTooLarge:
    """Return what says that an image has more bytes than it may."""
    return RequestTooLarge(f"Expected an image of at most {max_bytes} bytes. Received: more")
