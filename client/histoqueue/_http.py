"""Requests and answers as values, so that what to ask next is decided without a network."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar, Union

from ._errors import (
    HistoQueueError,
    InternalFault,
    MethodNotAllowed,
    RequestTooLarge,
    RouteNotFound,
    ServerUnreachable,
    Unavailable,
    UnexpectedAnswer,
    error_for,
)
from ._problem import Problem

#: A proxy in front of a server, or another service, answers in words of its own.
_OF_OTHERS: Mapping[int, type[HistoQueueError]] = {
    **dict.fromkeys((408, 429, 502, 503, 504), Unavailable),
    404: RouteNotFound,
    405: MethodNotAllowed,
    413: RequestTooLarge,
    # It may be due to one image.
    500: InternalFault,
}
#: Seconds for an answer that the server does not hold back.
ANSWER_SECONDS = 30.0


class FormFile(NamedTuple):
    """One file of a form."""

    #: What it is called there, and what the server gives back with its job.
    name: str
    body: bytes
    media_type: str


@dataclass(frozen=True)
class Request:
    """One request; `path` is what the server linked to, or a route of the contract."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    #: A form in place of the body: each file in the field `file`.
    files: Sequence[FormFile] = field(default=(), repr=False)
    #: How long the server was asked to hold the answer back.
    wait_seconds: float = 0.0
    #: Asked again where the error is one of time.
    repeat: bool = True


@dataclass(frozen=True)
class Answer:
    """What came back; header names are found in any spelling."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            UnexpectedAnswer: if it is none.
        """
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self.unexpected("a JSON object")
        return found

    def unexpected(self, what: str) -> UnexpectedAnswer:
        """Return the error of an answer that is not what it should be, with what answered."""
        kind = self.headers.get("Content-Type", "no type").partition(";")[0]
        return UnexpectedAnswer(
            f"Expected {what} of HistoQueue. Received: status {self.status}, {kind}, {self._start()}"
        )

    def error(self) -> HistoQueueError:
        """Return the error that this answer is."""
        retry_after = retry_after_seconds(self.headers)
        try:
            problem = Problem.from_json(self.json())
        except UnexpectedAnswer:
            problem = Problem("")
        if not (problem.code and isinstance(problem.code, str)):
            text = str(self.unexpected("an answer"))
            kind = _OF_OTHERS.get(self.status, UnexpectedAnswer)
            if self.status not in (401, 403):
                return kind(text, retry_after_seconds=retry_after)
            problem = Problem("", detail=text)
        if not problem.status:
            problem = Problem(**{**problem.__dict__, "status": self.status})
        return error_for(problem, retry_after)

    def _start(self) -> str:
        return repr(self.body[:80].decode("utf-8", "replace"))


@dataclass(frozen=True)
class Unanswered:
    """No answer: the server was not reached, or did not answer in time."""

    reason: str
    #: It will be the same at the next try.
    is_lasting: bool = False

    def error(self) -> HistoQueueError:
        """Return the error that this is."""
        return ServerUnreachable(f"Expected an answer. Received none: {self.reason}")


@dataclass(frozen=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


T = TypeVar("T")
Step = Union[Request, Pause]
Reply = Union[Answer, Unanswered, None]
#: A conversation: it yields what to do next, is sent the reply (None after a pause) and returns its outcome.
#: Both clients run the same ones; none of them knows a socket or a clock that ticks.
Flow = Generator[Step, Reply, T]


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return when to ask again: a number of seconds, or a date measured by the server's own clock.

    >>> retry_after_seconds({"Retry-After": "7"})
    7.0
    >>> retry_after_seconds({"Retry-After": "Sat, 31 Jan 2026 09:30:10 GMT",
    ...                      "Date": "Sat, 31 Jan 2026 09:30:00 GMT"})
    10.0
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    then = http_date(text)
    if then is None:
        return None
    now = http_date(headers.get("Date", "")) or datetime.now(timezone.utc)
    return max(0.0, (then - now).total_seconds())


def http_date(text: str) -> datetime | None:
    """Return the moment that a header states; None where it is no date."""
    try:
        found = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    # A date without a zone is in GMT (RFC 9110).
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
