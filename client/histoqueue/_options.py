"""What can be stated beside an image; the server checks the values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class Options(TypedDict, total=False):
    """Options of a submission; a server refuses one that it does not know with InvalidRequest."""

    #: Seconds that the job may wait in the queue.
    expires_in: float
    #: A published version such as 1.1.0; without it the live one.
    model_version: str
    #: Micrometres per pixel of the image.
    mpp: float
    #: 1 to 128 printable characters, given back with the job. It is stored: no patient's name.
    custom_id: str
    #: Make a heat map too.
    explain: bool
    #: interactive or bulk.
    priority: str
    #: Whether an earlier answer for the same pixels may be given.
    cache: bool
    #: Where the server reports the end of the job.
    webhook_url: str


def as_query(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options as query parameters; one that is None is left out.

    >>> as_query({"mpp": 0.5, "explain": True, "custom_id": None})
    {'mpp': '0.5', 'explain': 'true'}
    """
    return {name: _text(value) for name, value in options.items() if value is not None}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
