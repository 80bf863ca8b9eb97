"""What makes a repetition of a request known again: its idempotency key, and what it asks for."""

import hashlib
import re

from api.options import Options
from api.uploads import ImageUpload
from shared.errors import InvalidRequest
from shared.schemas import Idempotency

# No blank at either end: a server in between may take it away.
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")


def idempotency(
    header: str | None, path: str, upload: ImageUpload, options: Options, owner: str | None
) -> Idempotency | None:
    """Return what makes a repetition of this request by this owner known again; None without the header.

    Raises:
        InvalidRequest: if the header is not 1 to 255 printable ASCII characters.
    """
    return repeat_of(header, path, f"{upload.sha256}\n{options.canonical()}", owner)


def repeat_of(header: str | None, path: str, content: str, owner: str | None) -> Idempotency | None:
    """Return the same for any request; `content` tells it from another one with the same key.

    Raises:
        InvalidRequest: if the header is not 1 to 255 printable ASCII characters.
    """
    if header is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(header):
        raise InvalidRequest("Expected Idempotency-Key to be 1 to 255 printable ASCII characters.")
    # An owner is hexadecimal and a path begins with a slash: no two scopes can be the same text.
    return Idempotency(key=_sha256(f"{owner or ''}{path}\n{header}"), fingerprint=_sha256(content))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
