"""What clients were told, and the check of it by set algebra."""

import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.chaos.tiles import Tile


@dataclass(frozen=True)
class End:
    """What a client was told of a job's end. Times are seconds since the epoch, by Redis' clock."""

    is_right: bool
    status: str
    code: str | None
    attempt: int
    created_at: float
    finished_at: float
    #: Of all that was said: a final job is said the same way for ever.
    digest: str

    @property
    def seconds(self) -> float:
        """From the 202 to the outcome."""
        return self.finished_at - self.created_at


@dataclass
class History:
    """What was sent, what was accepted, and how it ended; filled by many threads."""

    #: Id of the job -> its image, for every 202 or 200.
    accepted: dict[str, Tile] = field(default_factory=dict)
    #: Id -> its end as it was first told.
    ended: dict[str, End] = field(default_factory=dict)
    #: Ids whose end was told in two ways, or that share an idempotency key with another.
    contradictory: set[str] = field(default_factory=set)
    #: Refusals by status, and connections that broke.
    refused: Counter[str] = field(default_factory=Counter)
    #: The slowest answer to a submission, in seconds; whatever it was.
    slowest_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note_accepted(self, job_id: str, tile: Tile, earlier: str | None = None) -> None:
        """Book a job; `earlier` is the id that the same key gave before."""
        with self._lock:
            self.accepted[job_id] = tile
            if earlier not in (None, job_id):
                self.contradictory.add(job_id)

    def note_refused(self, what: str) -> None:
        """Book an answer that accepted nothing."""
        with self._lock:
            self.refused[what] += 1

    def note_answered(self, seconds: float) -> None:
        """Book how long a submission waited for its answer."""
        with self._lock:
            self.slowest_seconds = max(self.slowest_seconds, seconds)

    def note_ended(self, job_id: str, job: dict[str, Any]) -> None:
        """Book a final job; a second telling must be like the first."""
        end = _end(self.accepted[job_id], job)
        with self._lock:
            if self.ended.setdefault(job_id, end).digest != end.digest:
                self.contradictory.add(job_id)

    def forget_ended(self) -> int:
        """Drop the jobs that have ended well, so that a long run stays small; return how many there were."""
        with self._lock:
            done = [job_id for job_id, end in self.ended.items() if end.is_right]
            for job_id in done:
                del self.ended[job_id], self.accepted[job_id]
            return len(done)

    def lost(self) -> set[str]:
        """Return the jobs that were accepted and never ended."""
        return set(self.accepted) - set(self.ended)

    def wrong(self) -> set[str]:
        """Return the jobs that ended otherwise than their image says, or with another image's result."""
        return {job_id for job_id, end in self.ended.items() if not end.is_right}

    def repeated(self) -> int:
        """Return how many jobs were run more than once."""
        return sum(1 for end in self.ended.values() if end.attempt > 1)

    def poison(self) -> int:
        """Return how many of the accepted images end every engine."""
        return sum(1 for tile in self.accepted.values() if tile.is_poison)


def _end(tile: Tile, job: dict[str, Any]) -> End:
    said = {name: value for name, value in job.items() if name not in ("links", "expires_at")}
    return End(
        is_right=tile.is_right(job),
        status=job["status"],
        code=job["error"]["code"] if job["error"] else None,
        attempt=job["attempt"],
        created_at=_seconds(job["created_at"]),
        finished_at=_seconds(job["finished_at"]),
        digest=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
    )


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
