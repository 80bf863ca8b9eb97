"""How jobs ended, kept in the object store too, so that a Redis that lost its data loses no result."""

from pydantic import ValidationError

from shared.object_store import ObjectStore
from shared.schemas import Job

#: Where the outcomes lie; sharded, because a folder of a million files is slow on a plain file system.
RESULTS = "results/"
#: Images that ended the engine; kept for whoever mends it.
QUARANTINE = "quarantine/"
#: A record is a few kilobytes.
_MOST_BYTES = 1_000_000


class Archive:
    """One object per ended job, by its id alone."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def put(self, job: Job) -> None:
        """Keep an ended job, as the ledger has it.

        Raises:
            ObjectStoreUnavailable: if the store does not answer.
        """
        self._objects.put(result_key(job.id), job.model_dump_json().encode(), "application/json")

    def get(self, job_id: str) -> Job | None:
        """Return an ended job, or None: there is none, or none that this version understands.

        Raises:
            ObjectStoreUnavailable: if the store does not answer.
        """
        try:
            return Job.model_validate_json(self._objects.get(result_key(job_id), _MOST_BYTES))
        except (FileNotFoundError, ValidationError, ValueError):
            return None

    def delete(self, job_id: str) -> None:
        """Remove the outcome."""
        self._objects.delete(result_key(job_id))

    def quarantine(self, job: Job, image: bytes) -> None:
        """Keep an image that ended the engine for whoever mends it."""
        self._objects.put(quarantine_key(job.id), image, job.spec.input.media_type)

    def forget(self, job_id: str) -> None:
        """Remove the outcome, and the quarantined image if there is one."""
        self.delete(job_id)
        self._objects.delete(quarantine_key(job_id))


def result_key(job_id: str) -> str:
    """Return where the outcome of this job lies."""
    return f"{RESULTS}{job_id[:2]}/{job_id}.json"


def quarantine_key(job_id: str) -> str:
    """Return where this job's image lies, if it ended the engine."""
    return QUARANTINE + job_id
