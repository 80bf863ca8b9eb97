"""Put right what fell between the ledger and the queue, keep outcomes twice, drop what is past its retention.

Any number of these may run at once.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from functools import partial

import structlog

from shared.archive import Archive, note_archived
from shared.crash_points import crash_point
from shared.errors import ObjectStoreUnavailable, cause_of
from shared.job_store import Cleanable, JobStore
from shared.object_store import ObjectStore
from shared.schemas import Job
from shared.task_queue import TaskQueue

#: How often a reaper looks for lost jobs, and how often for what is past its retention.
REAP_EVERY_SECONDS = 1.0
CLEAN_EVERY_SECONDS = 2.0
#: How long an outcome is in Redis alone; with the longest write to the object store on top.
ARCHIVE_EVERY_SECONDS = 0.5
#: How many outcomes one look takes on, and how many are written at the same time.
ARCHIVE_AT_ONCE = 500
ARCHIVE_THREADS = 8
CLEAN_THREADS = 8
#: How often a worker looks whether the ledger is to be compared with the object store.
SWEEP_LOOK_SECONDS = 2.0
#: How many jobs of each sort one look takes on.
REAP_AT_ONCE = 500
#: Where so many fail and none has gone well, the others are not tried before the next turn.
MOST_FAILED = 10
_log = structlog.get_logger(__name__)


def reap_once(jobs: JobStore, queue: TaskQueue) -> int:
    """Publish again what has neither message nor worker, end what is past its deadline.

    Returns:
        How many messages were published.
    """
    heads = queue.heads()
    due = jobs.due(heads, REAP_AT_ONCE)
    published = jobs.reap(due, heads) if due else []
    for job_id in published:
        crash_point("reaper.republished")
        _log.info("job_republished", job_id=job_id)
    return len(published)


def clean_once(jobs: JobStore, objects: ObjectStore, pool: Executor) -> int:
    """Delete the images, and drop the results, that are past their retention; in the threads of `pool`.

    Returns:
        How many are gone.
    """
    is_cleaned = partial(_is_cleaned, jobs, objects)
    return sum(_while_there_is_hope(pool.map(is_cleaned, jobs.cleanable(REAP_AT_ONCE))))


def _is_cleaned(jobs: JobStore, objects: ObjectStore, item: Cleanable) -> bool:
    try:
        _clean(jobs, objects, item)
    except Exception:  # noqa: BLE001 - logged whole
        # Where one of them is away, no other item can be cleaned either.
        objects.ping()
        jobs.ping()
        _log.exception("job_not_cleaned", job_id=item.job_id)
        return False
    return True


def _clean(jobs: JobStore, objects: ObjectStore, item: Cleanable) -> None:
    archive = Archive(objects)
    # First the object: should this process end in between, it is deleted once more.
    if item.image_key is not None:
        objects.delete(item.image_key)
        if item.has_heatmap:
            archive.delete_heatmap(item.job_id)
        crash_point("cleaner.deleted")
    if item.deleted:
        archive.forget(item.job_id)
    elif item.image_key is None:
        archive.delete(item.job_id)
    jobs.cleaned(item)


def archive_once(jobs: JobStore, objects: ObjectStore, pool: Executor) -> int:
    """Put how jobs ended into the object store, all that there are together.

    Returns:
        How many there are now.
    """
    archive = Archive(objects)
    ended = jobs.unarchived(ARCHIVE_AT_ONCE)
    try:
        archive.put_all(ended, pool)
    except (ObjectStoreUnavailable, ValueError):
        # Where the store is there, it is one outcome that holds up the others.
        objects.ping()
        are_put = _while_there_is_hope(_is_put(archive, job) for job in ended)
        ended = [job for job, is_put in zip(ended, are_put, strict=False) if is_put]
    if ended:
        crash_point("archiver.put")
    note_archived(jobs, archive, ended)
    return len(ended)


def _is_put(archive: Archive, job: Job) -> bool:
    try:
        archive.put(job)
    except (ObjectStoreUnavailable, ValueError) as error:
        _log.warning("outcome_not_archived", job_id=job.id, error=str(error), cause=cause_of(error))
        return False
    return True


def _while_there_is_hope(outcomes: Iterable[bool]) -> Iterator[bool]:
    """Yield which items went well; ends early where it is none of the first."""
    gone_well = failed = 0
    for is_well in outcomes:
        yield is_well
        gone_well, failed = gone_well + is_well, failed + (not is_well)
        if failed == MOST_FAILED and not gone_well:
            return
