"""A client that never gives up and writes down all that it was told, and the check of what it was told."""

import hashlib
import io
import time
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2
from PIL import Image, PngImagePlugin

from shared.schemas import new_job_id
from tests.chaos.system import System


def image(number: int, marker: bytes = b"") -> bytes:
    """Return a small PNG like no other; what `marker` says happens in the fake engine."""
    text = PngImagePlugin.PngInfo()
    text.add_text("note", f"{number} {marker.decode()}")
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (number % 256, number // 256 % 256, 128)).save(file, "PNG", pnginfo=text)
    return file.getvalue()


@dataclass
class History:
    """What was sent, what was accepted, and how it ended."""

    #: Id of the job -> digest of its image, for every 202 or 200.
    accepted: dict[str, str] = field(default_factory=dict)
    #: Ids whose image ends every engine.
    poison: set[str] = field(default_factory=set)
    #: Id -> the job as it was when it was final.
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Refusals by status, and connections that broke.
    refused: dict[str, int] = field(default_factory=dict)
    #: The slowest answer to a submission, in seconds.
    slowest_seconds: float = 0.0

    def lost(self) -> set[str]:
        """Return the jobs that were accepted and never ended."""
        return set(self.accepted) - set(self.ended)

    def wrong(self) -> list[dict[str, Any]]:
        """Return the jobs that ended otherwise than their image says, or with another image's result."""
        return [job for job_id, job in self.ended.items() if not self._is_right(job_id, job)]

    def _is_right(self, job_id: str, job: dict[str, Any]) -> bool:
        if job_id in self.poison:
            return job["status"] == "failed" and job["error"]["code"] == "POISON"
        return job["status"] == "succeeded" and job["result"]["sha256"] == self.accepted[job_id]

    def repeated(self) -> int:
        """Return how many jobs were run more than once."""
        return sum(1 for job in self.ended.values() if job["attempt"] > 1)


class Client:
    """One of several; each has its own connection."""

    def __init__(self, system: System, history: History) -> None:
        self._http = httpx2.Client(base_url=system.url, timeout=30, trust_env=False)
        self._history = history

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._http.close()

    def submit(self, body: bytes, poison: bool, until: float) -> None:
        """Send an image until it is accepted, with one key for all tries; give up when the time is over."""
        key = new_job_id()
        while time.monotonic() < until:
            started = time.monotonic()
            answer = self._send(body, key)
            self._history.slowest_seconds = max(self._history.slowest_seconds, time.monotonic() - started)
            if answer is not None and answer.status_code in (200, 202):
                job_id = answer.json()["id"]
                self._history.accepted[job_id] = hashlib.sha256(body).hexdigest()
                if poison:
                    self._history.poison.add(job_id)
                return
            self._note(answer)
            time.sleep(0.2)

    def finish(self, job_id: str, until: float) -> None:
        """Wait for a job's end."""
        while time.monotonic() < until:
            try:
                answer = self._http.get(f"/result/{job_id}", params={"wait": "5"})
            except httpx2.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                self._history.ended[job_id] = answer.json()
                return
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 503:
                time.sleep(0.2)

    def _send(self, body: bytes, key: str) -> httpx2.Response | None:
        try:
            return self._http.post(
                "/predict", content=body, headers={"Content-Type": "image/png", "Idempotency-Key": key}
            )
        except httpx2.HTTPError:
            return None

    def _note(self, answer: httpx2.Response | None) -> None:
        name = "broken" if answer is None else str(answer.status_code)
        assert name in ("broken", "429", "503"), answer and answer.text
        self._history.refused[name] = self._history.refused.get(name, 0) + 1
