"""An upload as it lies in the object store: the image, and behind it the job that it was accepted for.

One object and one write, so that an accepted job is never known by half, and the object still opens as an
image: decoders stop at its end. Behind the image come a line end, the job as JSON, the length of both in four
bytes (big-endian), and four bytes that say what this is.
"""

import struct
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.schemas import NewJob

#: Where accepted images lie, one folder a day.
UPLOADS = "uploads/"
#: What an envelope may add to its image.
MOST_ADDED_BYTES = 16_384
_TAIL = struct.Struct(">I4s")
_MARK = b"HQJ1"


class AcceptedJob(BaseModel):
    """All that is needed to accept the same job once more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: NewJob
    #: Milliseconds since the epoch, by the clock of the API server that accepted it.
    accepted_at_ms: int


def seal(image: BinaryIO, accepted: AcceptedJob) -> None:
    """Write the job behind the image, in the same seekable file; leaves it at its start.

    Raises:
        ValueError: if the job takes more than `MOST_ADDED_BYTES`.
    """
    body = b"\n" + accepted.model_dump_json().encode()
    if len(body) + _TAIL.size > MOST_ADDED_BYTES:
        raise ValueError(f"Expected a job of at most {MOST_ADDED_BYTES} bytes. Received: {len(body)}")
    image.seek(0, 2)
    image.write(body + _TAIL.pack(len(body), _MARK))
    image.seek(0)


def read_job(upload: bytes) -> AcceptedJob:
    """Return the job behind an image.

    Raises:
        ValueError: if there is none that this version understands.
    """
    if len(upload) < _TAIL.size:
        raise ValueError("Expected a job behind the image. Found: nothing")
    length, mark = _TAIL.unpack(upload[-_TAIL.size :])
    if mark != _MARK or length > len(upload) - _TAIL.size:
        raise ValueError("Expected a job behind the image. Found: something else")
    try:
        return AcceptedJob.model_validate_json(upload[-_TAIL.size - length : -_TAIL.size])
    except ValidationError as error:
        raise ValueError(f"Expected a job of this version behind the image. {error}") from error
