"""An image to submit, from a path, from bytes or from an open file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Union

Source = Union[str, "os.PathLike[str]", bytes, BinaryIO]
#: First bytes of what the server accepts; it looks at the content itself.
_SIGNATURES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
}


@dataclass(frozen=True)
class Upload:
    """The bytes of one image, and what they look like."""

    body: bytes = field(repr=False)
    media_type: str


def load(source: Source) -> Upload:
    """Return the image; a file is read whole.

    Raises:
        OSError: if the file cannot be read.
        TypeError: if it is neither a path, nor bytes, nor a file opened for reading bytes.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        body = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        body = Path(source).read_bytes()
    else:
        body = source.read()
        if not isinstance(body, bytes):
            raise TypeError(f"Expected a file opened in binary mode. Received: {type(body).__name__}")
    return Upload(body, media_type(body))


def media_type(body: bytes) -> str:
    """Return what the first bytes are the signature of, else application/octet-stream."""
    for signature, name in _SIGNATURES.items():
        if body.startswith(signature):
            return name
    return "application/octet-stream"
