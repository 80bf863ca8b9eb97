"""A problem object of the server (RFC 9457), as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MEMBERS = ("type", "title", "status", "detail", "instance", "code", "retryable", "request_id")


@dataclass(frozen=True)
class Problem:
    """What went wrong and what to do, in the server's words."""

    #: The word for programs, such as QUEUE_FULL.
    code: str
    title: str = ""
    #: What was expected, what came, and what to do.
    detail: str = ""
    status: int = 0
    #: The same request may succeed later.
    retryable: bool = False
    type: str = "about:blank"
    instance: str | None = None
    #: Finds the request in the server's log.
    request_id: str | None = None
    #: What this code tells beside that, such as `limit` and `queue_depth`.
    members: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Problem:
        """Return the problem that a JSON object states; what is missing takes its default."""
        known = {name: body[name] for name in _MEMBERS if body.get(name) is not None}
        known.setdefault("code", "")
        return cls(**known, members={name: value for name, value in body.items() if name not in _MEMBERS})

    def __str__(self) -> str:
        text = self.detail or self.title or "no detail"
        return f"{self.code}: {text}" if self.code else text
