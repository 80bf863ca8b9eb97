"""What a batch is, kept in the object store too, so that a Redis that lost its data knows its members."""

from collections.abc import Iterator, Sequence

import structlog
from pydantic import BaseModel, ConfigDict

from shared.object_store import ObjectStore, StoredObject
from shared.schemas import NewBatch

#: Where batches lie, a folder each: the batch, each hundred of its members, the word that it is whole.
BATCHES = "batches/"
#: There before the batch has members.
BATCH = "batch.json"
#: There once every member has been put.
WHOLE = "whole.json"
_MOST_BYTES = 1_000_000
_log = structlog.get_logger(__name__)


class BegunBatch(BaseModel):
    """All that is needed to begin the same batch once more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: NewBatch
    #: Milliseconds since the epoch, by the clock of the API server that began it.
    begun_at_ms: int

    @property
    def kept_until_ms(self) -> int:
        """When the ledger may have dropped it, at the earliest: had all its members ended at once."""
        return self.begun_at_ms + int(1000 * (self.batch.retention_seconds + self.batch.tombstone_seconds))


class Members(BaseModel):
    """Ids of jobs that may have been accepted as members."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: list[str]


class BatchArchive:
    """A folder for each batch. Every method raises ObjectStoreUnavailable where the store does not answer."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def put(self, batch: NewBatch, begun_at_ms: int) -> None:
        """Keep a batch, before it has members."""
        body = BegunBatch(batch=batch, begun_at_ms=begun_at_ms).model_dump_json().encode()
        self._objects.put(f"{BATCHES}{batch.id}/{BATCH}", body, "application/json")

    def has(self, batch_id: str) -> bool:
        """Tell whether a batch is kept."""
        return self.read(f"{BATCHES}{batch_id}/{BATCH}") is not None

    def put_members(self, batch_id: str, job_ids: Sequence[str]) -> None:
        """Keep the ids of members, before they are accepted; the same ones may be put again."""
        body = Members(ids=list(job_ids)).model_dump_json().encode()
        self._objects.put(f"{BATCHES}{batch_id}/members-{job_ids[0]}.json", body, "application/json")

    def put_whole(self, batch_id: str) -> None:
        """Note that the batch gets no more members."""
        self._objects.put(f"{BATCHES}{batch_id}/{WHOLE}", b"{}", "application/json")

    def walk(self) -> Iterator[tuple[StoredObject, str]]:
        """Yield every object with the id of its batch; a batch before its members."""
        for item in self._objects.walk(BATCHES):
            yield item, item.key.split("/")[1]

    def read(self, key: str) -> BegunBatch | list[str] | None:
        """Return a batch, or ids of members; None where there is nothing that this version understands."""
        try:
            body = self._objects.get(key, _MOST_BYTES)
            return (
                BegunBatch.model_validate_json(body)
                if key.endswith(BATCH)
                else Members.model_validate_json(body).ids
            )
        except FileNotFoundError:
            return None
        except ValueError:
            _log.warning("batch_not_understood", key=key)
            return None
