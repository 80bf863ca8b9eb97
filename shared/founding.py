"""Call a ledger that may be new, or may have lost its data."""

from collections.abc import Callable
from typing import TypeVar

from shared.archive import Archive
from shared.batch_archive import BATCHES
from shared.envelope import UPLOADS
from shared.errors import JobNotFound, LedgerRebuilding
from shared.services import Services
from shared.settings import Settings

_Answer = TypeVar("_Answer")


def found_if_empty(services: Services) -> None:
    """Declare a ledger whole that has nothing to be rebuilt from."""
    # Batches outlive their images. Outcomes alone bring nothing back: they are read from where they are.
    if not any(True for prefix in (UPLOADS, BATCHES) for _ in services.objects.walk(prefix)):
        services.jobs.found()


def founded(services: Services, call: Callable[[], _Answer]) -> _Answer:
    """Make a call of the ledger; one that is empty because it is new is declared whole on the way."""
    try:
        return call()
    except LedgerRebuilding:
        found_if_empty(services)
        return call()


def remembered(services: Services, settings: Settings, job_id: str, call: Callable[[], _Answer]) -> _Answer:
    """Make a call of the ledger about one job; one that it lost after its end is taken in before.

    Raises:
        JobNotFound, LedgerRebuilding: if the object store does not know the job either.
    """
    try:
        return founded(services, call)
    except (JobNotFound, LedgerRebuilding):
        job = Archive(services.objects).get(job_id)
        if job is not None:
            services.jobs.restore_ended(job, settings.image_retention_seconds, settings.tombstone_seconds)
        # Once more in any case: another request may have been quicker.
        return call()
