"""What the object store keeps of a job beside its image.

How it ended, so that a Redis that lost its data loses no result; its heat map; and its image again if that
ended the engine.
"""

from collections.abc import Sequence
from concurrent.futures import Executor

import structlog

from shared.job_store import JobStore
from shared.object_store import NewObject, ObjectStore
from shared.schemas import Job

#: Where the outcomes lie; sharded, because a folder of a million files is slow on a plain file system.
RESULTS = "results/"
#: Images that ended the engine; kept for whoever mends it.
QUARANTINE = "quarantine/"
#: Where the network looked, as an image.
HEATMAPS = "heatmaps/"
#: A record is a few kilobytes, a heat map some hundred.
_MOST_BYTES = 1_000_000
_log = structlog.get_logger(__name__)


class Archive:
    """One object per ended job, by its id alone."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def put(self, job: Job) -> None:
        """Keep an ended job, as the ledger has it.

        Raises:
            ObjectStoreUnavailable: if the store does not answer.
        """
        outcome = _outcome(job)
        self._objects.put(outcome.key, outcome.body, outcome.content_type)

    def put_all(self, jobs: Sequence[Job], pool: Executor) -> None:
        """Keep several; `pool` as in `ObjectStore.put_all`.

        Raises:
            ObjectStoreUnavailable: if the store does not answer; some may be kept.
        """
        self._objects.put_all([_outcome(job) for job in jobs], pool)

    def get(self, job_id: str) -> Job | None:
        """Return an ended job, or None: there is none, or none that this version understands.

        Raises:
            ObjectStoreUnavailable: if the store does not answer.
        """
        try:
            return Job.model_validate_json(self._objects.get(result_key(job_id), _MOST_BYTES))
        except FileNotFoundError:
            return None
        except ValueError:
            _log.warning("outcome_not_understood", key=result_key(job_id))
            return None

    def delete(self, job_id: str) -> None:
        """Remove the outcome."""
        self._objects.delete(result_key(job_id))

    def quarantine(self, job: Job, image: bytes) -> None:
        """Keep an image that ended the engine for whoever mends it."""
        self._objects.put(quarantine_key(job.id), image, job.spec.input.media_type)

    def put_heatmap(self, job_id: str, png: bytes) -> None:
        """Keep where the network looked.

        Raises:
            ObjectStoreUnavailable: if the store does not answer.
        """
        self._objects.put(heatmap_key(job_id), png, "image/png")

    def get_heatmap(self, job_id: str) -> bytes | None:
        """Return the heat map as a PNG; None where there is none.

        Raises:
            ObjectStoreUnavailable: if the store does not answer.
        """
        try:
            return self._objects.get(heatmap_key(job_id), _MOST_BYTES)
        except (FileNotFoundError, ValueError):
            return None

    def delete_heatmap(self, job_id: str) -> None:
        """Remove the heat map, if there is one."""
        self._objects.delete(heatmap_key(job_id))

    def forget(self, job_id: str) -> None:
        """Remove the outcome, the heat map and the quarantined image, as far as there are any."""
        self.delete(job_id)
        self.delete_heatmap(job_id)
        self._objects.delete(quarantine_key(job_id))


def note_archived(jobs: JobStore, archive: Archive, ended: Sequence[Job]) -> None:
    """Note in the ledger that these outcomes are put, and take out what was deleted or retried.

    One that has ended anew by now is put there once more: the outcome that is removed may be the later one.
    """
    for job_id in jobs.archived(ended):
        archive.delete(job_id)
        jobs.unarchive(job_id)


def _outcome(job: Job) -> NewObject:
    return NewObject(result_key(job.id), job.model_dump_json().encode(), "application/json")


def result_key(job_id: str) -> str:
    """Return where the outcome of this job lies."""
    return f"{RESULTS}{job_id[:2]}/{job_id}.json"


def heatmap_key(job_id: str) -> str:
    """Return where this job's heat map lies; sharded as the outcomes are."""
    return f"{HEATMAPS}{job_id[:2]}/{job_id}.png"


def quarantine_key(job_id: str) -> str:
    """Return where this job's image lies, if it ended the engine."""
    return QUARANTINE + job_id
