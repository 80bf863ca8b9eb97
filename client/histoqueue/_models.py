"""A job as the server tells it, in frozen values; what a newer server adds is kept in `raw`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ._problem import Problem

#: What stands in every export.
NOTICE = "Research use only, not for diagnostic use."
FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})


@dataclass(frozen=True)
class Result:
    """The answer for one image; a rejected one has neither class nor probabilities."""

    #: Such as lung_aca; the JSON calls it `class`.
    class_name: str | None
    label: str | None
    #: Calibrated probability of the class, 0 to 1.
    confidence: float | None
    probabilities: Mapping[str, float]
    cancer_probability: float | None
    #: classified, indeterminate or rejected.
    verdict: str | None
    #: Why to doubt it: low_confidence, background, blurred, out_of_domain, ...
    reasons: tuple[str, ...]
    #: background_fraction, sharpness, domain_distance, ...; None for what was not measured.
    quality: Mapping[str, float | None]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Result:
        """Return the result that a JSON object states."""
        return cls(
            class_name=body.get("class"),
            label=body.get("label"),
            confidence=body.get("confidence"),
            probabilities=body.get("probabilities") or {},
            cancer_probability=body.get("cancer_probability"),
            verdict=body.get("verdict"),
            reasons=tuple(body.get("reasons") or ()),
            quality=body.get("quality") or {},
        )


@dataclass(frozen=True)
class ModelRef:
    """The model version that a job was accepted for."""

    name: str
    version: str
    #: Digest of the weights.
    sha256: str

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ModelRef:
        """Return the reference that a JSON object states."""
        return cls(str(body.get("name", "")), str(body.get("version", "")), str(body.get("sha256", "")))


@dataclass(frozen=True)
class InputInfo:
    """The image as the server received it; width and height in pixels."""

    sha256: str
    bytes: int
    width: int
    height: int
    media_type: str
    #: Micrometres per pixel, as stated with the submission.
    mpp: float | None = None

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> InputInfo:
        """Return the description that a JSON object states."""
        return cls(
            sha256=str(body.get("sha256", "")),
            bytes=int(body.get("bytes") or 0),
            width=int(body.get("width") or 0),
            height=int(body.get("height") or 0),
            media_type=str(body.get("media_type", "")),
            mpp=body.get("mpp"),
        )


@dataclass(frozen=True)
class QueuePlace:
    """Jobs ahead, and seconds until the end; None where the server does not know."""

    position: int | None
    eta_seconds: float | None


@dataclass(frozen=True)
class JobRecord:
    """One job at one moment."""

    id: str
    #: queued, running, succeeded, failed, canceled or expired.
    status: str
    custom_id: str | None
    #: Answered from an earlier job with the same pixels and the same model.
    cached: bool
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    #: Until when the result is kept.
    expires_at: datetime | None
    attempt: int
    #: Only while the job is queued.
    queue: QueuePlace | None
    model: ModelRef | None
    input: InputInfo | None
    result: Result | None
    error: Problem | None
    timings_ms: Mapping[str, float]
    batch: str | None
    links: Mapping[str, str | None]
    #: The whole JSON object.
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def is_final(self) -> bool:
        """A final status never changes again."""
        return self.status in FINAL

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> JobRecord:
        """Return the job that a JSON object states.

        Raises:
            KeyError: if it has no `id` or no `status`.
        """
        queue = body.get("queue")
        return cls(
            id=str(body["id"]),
            status=str(body["status"]),
            custom_id=body.get("custom_id"),
            cached=bool(body.get("cached")),
            created_at=moment(body.get("created_at")),
            started_at=moment(body.get("started_at")),
            finished_at=moment(body.get("finished_at")),
            expires_at=moment(body.get("expires_at")),
            attempt=int(body.get("attempt") or 0),
            queue=QueuePlace(queue.get("position"), queue.get("eta_seconds")) if queue else None,
            model=ModelRef.from_json(body["model"]) if body.get("model") else None,
            input=InputInfo.from_json(body["input"]) if body.get("input") else None,
            result=Result.from_json(body["result"]) if body.get("result") else None,
            error=problem_in(body["error"]) if body.get("error") else None,
            timings_ms=body.get("timings_ms") or {},
            batch=body.get("batch"),
            links=links_in(body),
            raw=body,
        )


@dataclass(frozen=True)
class BatchRecord:
    """What became of the files of one request: a job for each, or why it has none, by the file's name."""

    id: str
    #: The jobs' ids.
    jobs: Mapping[str, str]
    problems: Mapping[str, Problem]
    links: Mapping[str, str | None]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> BatchRecord:
        """Return the batch that the answer to a submission states.

        Raises:
            KeyError: if it has no `id`, or an item has no `custom_id` or no `id`.
        """
        return cls(
            id=str(body["id"]),
            jobs={str(item["custom_id"]): str(item["id"]) for item in body.get("items") or ()},
            problems={str(item["custom_id"]): problem_in(item) for item in body.get("problems") or ()},
            links=links_in(body),
        )


def problem_in(body: Mapping[str, Any]) -> Problem:
    """Return why a job has no result.

    Raises:
        TypeError: if its code is no word.
    """
    problem = Problem.from_json(body)
    if not isinstance(problem.code, str):
        raise TypeError(f"Expected the code of an error. Received: {problem.code!r}")
    return problem


def links_in(body: Mapping[str, Any]) -> dict[str, str | None]:
    """Return where a job or a batch says to go on.

    Raises:
        AttributeError, TypeError: if it holds something else.
    """
    links: dict[str, str | None] = body.get("links") or {}
    for name, link in links.items():
        if not (link is None or isinstance(link, str)):
            raise TypeError(f"Expected the link {name} to be a text. Received: {link!r}")
    return links


def moment(text: str | None) -> datetime | None:
    """Return an RFC 3339 time such as 2026-01-31T09:30:00.125Z; None for None."""
    # Python 3.9 and 3.10 do not read the Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
