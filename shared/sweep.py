"""Compare the object store with the ledger: take in what the ledger lost, remove what nobody else will.

After a loss of Redis' data the ledger is rebuilt from the uploads: those without an outcome are run, and
those with one noted as ended. Outcomes alone stay where they are, and are read from there. The same
comparison, made now and then, finds the upload of a request that broke off, and what a loss of data left
without anybody to delete it. Taking a job in twice makes one job.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import structlog

from shared.archive import HEATMAPS, QUARANTINE, RESULTS, Archive
from shared.batch_archive import BATCH, WHOLE, BatchArchive, BegunBatch
from shared.envelope import MOST_ADDED_BYTES, UPLOADS, AcceptedJob, read_job
from shared.errors import (
    BatchNotFound,
    CallerError,
    IdempotencyKeyReused,
    LedgerRebuilding,
    ObjectStoreUnavailable,
    ResultExpired,
    cause_of,
)
from shared.object_store import StoredObject
from shared.schemas import Idempotency, Job, is_job_id
from shared.services import Services
from shared.settings import Settings

#: A request has its image stored and its job not yet recorded for this long at the most.
IN_FLIGHT_SECONDS = 10.0
#: No image takes so long to be stored.
BROKEN_OFF_SECONDS = 3600.0
#: Without a sign of life for so long, a comparison counts as broken off, and somebody else begins another.
SILENCE_SECONDS = 60.0
#: So often whoever compares says that it does, between two objects.
HOLD_EVERY_SECONDS = 5.0
#: A Redis that lost its last writes, as after a failover, lost no batch that was begun before this.
LATEST_BATCHES_SECONDS = 86_400
#: No caller may have a job wait longer in the queue; where none says, it waits as long as the settings do.
LONGEST_WAIT_SECONDS = 7 * 86_400
#: So many refusals of the store are told one by one: it may refuse every removal, for want of a right.
MOST_TOLD = 10
_AT_ONCE = 200
#: So many uploads are read side by side: a server takes its time over each.
_READERS = 8
_NO_LIMIT = 2**62
_log = structlog.get_logger(__name__)


class _Upload(NamedTuple):
    """What stands behind an image, or why nobody understands it, or None: it is gone; and its job's end."""

    accepted: AcceptedJob | ValueError | None
    outcome: Job | None


@dataclass
class Swept:
    """What one comparison did, in objects."""

    #: Uploads that are open jobs of the ledger again.
    restored: int = 0
    #: Images, outcomes, heat maps and quarantined images removed because they were past their retention.
    removed: int = 0
    #: Uploads that hold no job which this version understands; left alone.
    not_understood: int = 0
    #: What the store would not remove; it is tried again by the next one.
    refused: int = 0


class Sweep:
    """One comparison."""

    def __init__(
        self,
        services: Services,
        settings: Settings,
        clock_ms: Callable[[], int] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`clock_ms` stands for the ledger's clock; this machine's own may be wrong by days."""
        self._jobs = services.jobs
        self._objects = services.objects
        self._archive = Archive(services.objects)
        self._batches = BatchArchive(services.objects)
        self._settings = settings
        self._clock = clock_ms or services.jobs.now_ms
        self._sleep = sleep
        self._swept = Swept()
        self._held_at_ms = 0
        #: So many uploads, members of batches and outcomes without a record were looked at.
        self._looked_at = 0
        #: So many objects could not be read.
        self._passed_over = 0
        #: Batches whose members are looked for -> whether the ledger knows that it has them all.
        self._batches_looked_at: dict[str, bool] = {}
        #: Those of which every member was accepted, though the ledger does not know it.
        self._whole: list[str] = []

    def run(self) -> Swept | None:
        """Compare, and declare the ledger whole; None if somebody else is at it, or data was lost again.

        Raises:
            Unavailable: if the ledger or the object store goes away, or an object cannot be read; nothing is
                lost by it.
        """
        if not self._jobs.begin_sweep(SILENCE_SECONDS):
            return None
        is_whole = False
        try:
            is_whole = (
                self._sweep_batches()
                and self._sweep_uploads()
                and self._has_read_all()
                and self._seal_batches()
                and self._sweep_unknown(RESULTS, self._settings.result_retention_seconds)
                and self._sweep_unknown(HEATMAPS, self._settings.image_retention_seconds)
                and self._sweep_quarantine()
            )
            self._objects.remove_partial(BROKEN_OFF_SECONDS)
        finally:
            is_whole = self._jobs.end_sweep(is_whole) and is_whole
        if not is_whole:
            return None
        _log.info("swept", **vars(self._swept))
        return self._swept

    def _has_read_all(self) -> bool:
        """Return True, or raise: what was passed over may be an accepted job, or what one belongs to."""
        if self._passed_over:
            raise ObjectStoreUnavailable(f"{self._passed_over} objects cannot be read; the log names them.")
        return True

    def _sweep_batches(self) -> bool:
        """Begin lost batches again, and take in members that have ended; the uploads bring the others."""
        settings = self._settings
        waits = max(LONGEST_WAIT_SECONDS, settings.job_expires_seconds)
        kept = waits + settings.result_retention_seconds + settings.tombstone_seconds
        is_lost = not self._jobs.is_founded()
        for item, batch_id in self._batches.walk():
            if not self._jobs.hold_sweep(SILENCE_SECONDS):
                return False
            with self._passing_over(item):
                if self._remove_after(item, kept):
                    continue
                if item.key.endswith(BATCH):
                    self._look_at_batch(item, batch_id, is_lost)
                elif item.key.endswith(WHOLE):
                    if self._batches_looked_at.get(batch_id) is False:
                        self._whole.append(batch_id)
                elif batch_id in self._batches_looked_at:
                    self._restore_members(item, batch_id)
        return self._jobs.hold_sweep(SILENCE_SECONDS)

    def _look_at_batch(self, item: StoredObject, batch_id: str, is_lost: bool) -> None:
        """Begin a lost batch again, and note whose members are to be looked for.

        A ledger that has lost nothing is asked for the batches of the last day alone. One that it has may
        lack members: it may have lost its writes from any of them on, or a comparison may have broken off.
        """
        if not is_lost:
            if self._clock() - item.modified_at_ms > LATEST_BATCHES_SECONDS * 1000:
                return
            try:
                self._batches_looked_at[batch_id] = self._jobs.batch(batch_id).is_whole
            except ResultExpired:
                return
            except BatchNotFound:
                pass
            else:
                return
        begun = self._batches.read(item.key)
        if isinstance(begun, BegunBatch) and (is_lost or self._clock() < begun.kept_until_ms):
            self._begin_again(begun)
            self._batches_looked_at[batch_id] = False

    def _begin_again(self, begun: BegunBatch) -> None:
        batch, begun_at_ms = begun.batch, begun.begun_at_ms
        is_begun = False
        # The ledger forgets a batch, and its key, before what is kept of it here goes.
        if self._clock() < begun.kept_until_ms:
            with suppress(IdempotencyKeyReused):
                is_begun = self._jobs.create_batch(batch, begun_at_ms) == batch.id
        if not is_begun:
            # Its key may be another batch's by now.
            self._jobs.create_batch(batch.model_copy(update={"idempotency": None}), begun_at_ms)

    def _restore_members(self, item: StoredObject, batch_id: str) -> None:
        found = self._batches.read(item.key)
        for job_id in self._jobs.unknown(found if isinstance(found, list) else []):
            if not self._holds_on():
                return
            self._looked_at += 1
            with self._passing_over(item):
                self._restore_member(job_id, batch_id)

    def _restore_member(self, job_id: str, batch_id: str) -> None:
        job = self._archive.get(job_id)
        if job and job.spec.batch == batch_id:
            settings = self._settings
            self._restore_ended(job, settings.image_retention_seconds, settings.tombstone_seconds)

    def _seal_batches(self) -> bool:
        """Note of lost batches that every member is back."""
        for batch_id in self._whole:
            try:
                self._jobs.batch(batch_id, seal=True)
            except (CallerError, LedgerRebuilding):
                _log.info("batch_is_over", batch_id=batch_id)
        return self._jobs.hold_sweep(SILENCE_SECONDS)

    def _sweep_uploads(self) -> bool:
        in_flight: list[StoredObject] = []
        with ThreadPoolExecutor(_READERS, thread_name_prefix="sweep") as pool:
            for items in _some(self._unknown_to_the_ledger(UPLOADS), _READERS):
                uploads = [pool.submit(self._read, item) for item in items]
                for item, upload in zip(items, uploads, strict=True):
                    with self._passing_over(item):
                        if self._holds_on() and not self._settle(item, upload.result()):
                            in_flight.append(item)
        if in_flight:
            # Whatever request had just stored them has recorded them by then, or never will.
            self._sleep(IN_FLIGHT_SECONDS)
            for item in in_flight:
                if self._holds_on() and self._jobs.unknown([_job_id(item)]):
                    with self._passing_over(item):
                        self._settle(item, self._read(item), is_patient=False)
        return self._jobs.hold_sweep(SILENCE_SECONDS)

    def _read(self, item: StoredObject) -> _Upload:
        """Read what an upload says of its job, and how that ended; not its image, of which many are read."""
        outcome = self._archive.get(_job_id(item))
        try:
            upload = self._objects.get(item.key, self._settings.max_image_bytes + MOST_ADDED_BYTES)
            return _Upload(read_job(upload), outcome)
        except FileNotFoundError:
            return _Upload(None, outcome)
        except ValueError as error:
            return _Upload(error, outcome)
        except ObjectStoreUnavailable:
            if outcome is None:
                raise
            # Of a job that has ended no more than its key is lost with it, if it is this object alone.
            self._objects.ping()
            return _Upload(None, outcome)

    def _settle(self, item: StoredObject, upload: _Upload, is_patient: bool = True) -> bool:
        """Put one upload right; False where it is too early to tell whether its request is at an end."""
        accepted, outcome = upload.accepted, upload.outcome
        if outcome is not None and self._remove_after(item, self._settings.image_retention_seconds):
            return True
        if isinstance(accepted, ValueError):
            self._swept.not_understood += 1
            _log.warning("upload_not_understood", key=item.key, error=str(accepted))
        elif accepted is not None and outcome is not None:
            new = accepted.job
            kept = new.image_retention_seconds, new.tombstone_seconds
            # With its key: a repetition of its request finds it.
            self._restore_ended(outcome, *kept, new.idempotency)
        elif accepted is not None:
            if is_patient and self._clock() - accepted.accepted_at_ms < IN_FLIGHT_SECONDS * 1000:
                return False
            self._restore(accepted)
        return True

    def _restore_ended(
        self,
        job: Job,
        image_retention_seconds: float,
        tombstone_seconds: float,
        idempotency: Idempotency | None = None,
    ) -> None:
        """Take in a job that had ended, unless its result is past its retention."""
        if (job.expires_at_ms or 0) > self._clock():
            self._jobs.restore_ended(job, image_retention_seconds, tombstone_seconds, idempotency)

    def _restore(self, accepted: AcceptedJob) -> None:
        try:
            created = self._jobs.create(accepted.job, _NO_LIMIT, accepted.accepted_at_ms)
            is_first = not created.replayed
        except IdempotencyKeyReused:
            is_first = False
        if not is_first:
            # Another upload came with the same key. Which of the two was answered with 202 cannot be told
            # from here, so both are run; the key stays with the other.
            alone = accepted.job.model_copy(update={"idempotency": None})
            created = self._jobs.create(alone, _NO_LIMIT, accepted.accepted_at_ms)
        self._swept.restored += 1
        _log.info("job_restored", job_id=created.job.id)

    def _sweep_unknown(self, prefix: str, seconds: float) -> bool:
        for item in self._unknown_to_the_ledger(prefix):
            self._remove_after(item, seconds)
        return self._jobs.hold_sweep(SILENCE_SECONDS)

    def _sweep_quarantine(self) -> bool:
        for item in self._objects.walk(QUARANTINE):
            self._remove_after(item, self._settings.quarantine_retention_seconds)
        return self._jobs.hold_sweep(SILENCE_SECONDS)

    def _remove_after(self, item: StoredObject, seconds: float) -> bool:
        """Remove an object that is older than this; return whether it is."""
        if self._clock() - item.modified_at_ms <= seconds * 1000:
            return False
        try:
            self._objects.delete(item.key)
            self._swept.removed += 1
        except ObjectStoreUnavailable as error:
            self._swept.refused += 1
            self._refused("object_not_removed", item, error, self._swept.refused)
        return True

    @contextmanager
    def _passing_over(self, item: StoredObject) -> Iterator[None]:
        """Have an object that cannot be read hold up no other."""
        try:
            yield
        except ObjectStoreUnavailable as error:
            self._passed_over += 1
            self._refused("object_not_read", item, error, self._passed_over)

    def _refused(self, event: str, item: StoredObject, error: ObjectStoreUnavailable, count: int) -> None:
        """Go on if it is this object alone that the store refuses.

        Raises:
            ObjectStoreUnavailable: if the store is away.
        """
        self._objects.ping()
        if count <= MOST_TOLD:
            _log.warning(event, key=item.key, error=str(error), cause=cause_of(error))

    def _unknown_to_the_ledger(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose job has no record; ends early if data is lost again."""
        for items in _some(self._objects.walk(prefix), _AT_ONCE):
            if not self._jobs.hold_sweep(SILENCE_SECONDS):
                return
            by_id = {_job_id(item): item for item in items if is_job_id(_job_id(item))}
            for job_id in self._jobs.unknown(list(by_id)):
                # What is done about each may take seconds, where the store is far away.
                if not self._holds_on():
                    return
                self._looked_at += 1
                yield by_id[job_id]

    def _holds_on(self) -> bool:
        """Prolong the right to compare, where that is some time ago; False as for `hold_sweep`."""
        now_ms = self._clock()
        if abs(now_ms - self._held_at_ms) > HOLD_EVERY_SECONDS * 1000:
            if self._held_at_ms:
                # Meanwhile an empty ledger has requests refused: somebody may be waiting for the end.
                _log.info("sweeping", looked_at=self._looked_at, restored=self._swept.restored)
            self._held_at_ms = now_ms
            return self._jobs.hold_sweep(SILENCE_SECONDS)
        return True


def sweep_when_due(services: Services, settings: Settings) -> Swept | None:
    """Compare, if that was long ago or the ledger has lost its data; None where it was not done."""
    return Sweep(services, settings).run() if services.jobs.sweep_is_due() else None


def _job_id(item: StoredObject) -> str:
    return item.key.rpartition("/")[2].partition(".")[0]


def _some(items: Iterable[StoredObject], at_once: int) -> Iterator[list[StoredObject]]:
    iterator = iter(items)
    while some := list(islice(iterator, at_once)):
        yield some
