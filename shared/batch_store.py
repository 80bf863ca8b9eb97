"""The batches of the ledger: which jobs were submitted together, and how far they are.

A batch is begun before its first member is accepted, and is whole once it gets no more of them. It is
completed when it is whole and no member is open; a retry opens it again.
"""

from collections.abc import Sequence
from typing import Protocol

from shared.errors import BatchNotFound, HistoQueueError, ResultExpired
from shared.schemas import Batch, Idempotency, Job, JobStatus, NewBatch, NewJob

#: A batch gets no more members so long after it was begun: whoever submitted it is gone.
INTAKE_SECONDS = 3600


class BatchStore(Protocol):
    """Batches in, counts and ended jobs out. Raises JobStoreUnavailable where it cannot answer in time."""

    def create_batch(self, new: NewBatch, begun_at_ms: int | None = None, *, is_full: bool = False) -> str:
        """Begin a batch, or find the one that its idempotency key began; return its id.

        `begun_at_ms` restores a batch that was begun before this ledger lost its data; where that `is_full`,
        one is found or none is begun.

        Raises:
            IdempotencyKeyReused: if the key came with another request before.
            JobStoreFull: if it would have been begun.
            LedgerRebuilding: if it has a key, and the ledger cannot tell yet whether that is new.
        """

    def create_many(
        self, news: Sequence[NewJob], max_open: int, max_owned: int = 0
    ) -> list[Job | HistoQueueError]:
        """Accept and publish jobs; return each one's record, or why it was not accepted, in order."""

    def answered_by(self, answer_keys: Sequence[str]) -> list[str | None]:
        """Return for each key the job whose result answers it; None where there is none."""

    def answer_many(self, news: Sequence[NewJob], answered_by: Sequence[str]) -> list[Job | None]:
        """Accept jobs and end each with the result of another one; None where that is kept no more."""

    def batch(self, batch_id: str, seal: bool = False) -> Batch:
        """Return a batch; `seal` says that it gets no more members.

        Raises:
            BatchNotFound: if the id is unknown.
            ResultExpired: if its results are past their retention.
            LedgerRebuilding: if the ledger cannot tell yet whether there is such a batch.
        """

    def members(self, batch_id: str, start: int, count: int) -> list[str]:
        """Return the ids of so many members from the one with number `start` on, as they were accepted."""

    def ended(self, batch_id: str, start: int, count: int) -> list[Job]:
        """Return the members that ended as the ends from `start` on, each only where it last did.

        Those whose result is past its retention are left out.
        """

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        """Return the status of each; None where it has no record, or was deleted."""

    def restore_ended(
        self,
        job: Job,
        image_retention_seconds: float,
        tombstone_seconds: float,
        idempotency: Idempotency | None = None,
    ) -> bool:
        """Take in a job that ended before this ledger lost its data, and the key that it came with, if any.

        A key that a later job has by now stays that one's.

        Returns:
            False where it is known, or is a member of a batch that is not.
        """


def no_such_batch(batch_id: str) -> BatchNotFound:
    """Return what says that no batch has this id."""
    return BatchNotFound(f"No batch has the id {batch_id}. Expected an id that POST /batches returned.")


def batch_expired(owner: str | None) -> ResultExpired:
    """Return what says that the results are dropped."""
    return ResultExpired("The batch is past its retention and was dropped. Submit the images again.", owner)
