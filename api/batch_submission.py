"""The use case of a batch: each item becomes a job of its own, some hundred at a time."""

import hashlib
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import structlog

from api.batch_items import Intake, Item
from api.options import BatchOptions
from api.repeats import repeat_of
from api.room import check_memory, check_room, is_full
from api.submission import count_cached, discard, input_of, new_job
from api.uploads import ImageUpload, checked_image
from shared.archive import Archive
from shared.batch_archive import BatchArchive
from shared.crash_points import crash_point
from shared.envelope import AcceptedJob, seal
from shared.errors import (
    CallerError,
    CustomIdRepeated,
    HistoQueueError,
    JobStoreFull,
    NothingValid,
    QueueFull,
    Unavailable,
)
from shared.founding import founded
from shared.schemas import (
    Batch,
    JobSpec,
    ModelRef,
    NewBatch,
    NewJob,
    Priority,
    new_job_id,
    wall_clock_ms,
)
from shared.services import Services
from shared.settings import Settings

#: So many items are accepted in one exchange with the ledger.
AT_ONCE = 100
#: So many images of one batch are written at the same time.
THREADS = 8
#: By idempotency key, of those whose request is under way in this process.
_TURNS: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
_TURNS_GUARD = threading.Lock()
_log = structlog.stdlib.get_logger("api.batches")


@dataclass(frozen=True)
class SubmittedBatch:
    """What became of a batch's items: its name and its job's id, or its name and why it has none."""

    batch: Batch
    accepted: list[tuple[str, str]]
    problems: list[tuple[str, HistoQueueError]]
    #: An earlier request with the same idempotency key began it.
    replayed: bool


@dataclass(frozen=True)
class _Checked:
    """An item that is an image; the image's file is closed."""

    item: Item
    image: ImageUpload


@dataclass
class _Run:
    """One request's way through its items."""

    services: Services
    settings: Settings
    intake: Intake
    options: BatchOptions
    owner: str | None
    request_id: str
    model: ModelRef
    pool: ThreadPoolExecutor
    new: NewBatch
    batch_id: str | None = None
    accepted: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, HistoQueueError]] = field(default_factory=list)
    #: Nothing more is tried: the queue is full, or a store is away.
    stopped_by: Unavailable | None = None


def submit_batch(
    services: Services,
    settings: Settings,
    intake: Intake,
    options: BatchOptions,
    idempotency_key: str | None,
    request_id: str,
    owner: str | None,
) -> SubmittedBatch:
    """Accept what can be accepted: what is listed as accepted is never lost.

    A repetition with the same idempotency key goes on where the first one ended: what was accepted is found
    again, and what was refused for want of room is tried once more.

    Raises:
        CustomIdRepeated: if two items have the same name.
        NothingValid: if no item can become a job.
        QueueFull: if there is room for none of them.
        IdempotencyKeyReused: if the key came with other items or options before.
        UnknownModelVersion: if the options name a version that there is not.
        Unavailable: if a store is away before anything is accepted, or no model is published.
    """
    _check_names(intake)
    content = f"{intake.fingerprint}\n{options.canonical()}"
    new = NewBatch(
        id=new_job_id(),
        owner=owner,
        webhook_url=options.webhook_url,
        expires_in_seconds=options.expires_in or settings.job_expires_seconds,
        retention_seconds=settings.result_retention_seconds,
        tombstone_seconds=settings.tombstone_seconds,
        idempotency=repeat_of(idempotency_key, "/batches", content, owner),
    )
    version = options.model_version
    model = services.models.live() if version is None else services.models.reference(version)
    with _one_at_a_time(new), ThreadPoolExecutor(THREADS, thread_name_prefix="batch") as pool:
        run = _Run(services, settings, intake, options, owner, request_id, model, pool, new)
        for start in range(0, len(intake.items), AT_ONCE):
            _accept(run, intake.items[start : start + AT_ONCE])
    if not run.accepted or run.batch_id is None:
        raise _nothing_accepted(run)
    batch = services.jobs.batch(run.batch_id, seal=True)
    try:
        BatchArchive(services.objects).put_whole(batch.id)
    except Unavailable:
        # A ledger that loses its data now takes it for unfinished, for a while.
        _log.warning("end_of_batch_not_kept", batch_id=batch.id)
    crash_point("api.batch_whole")
    _log.info("batch_accepted", batch_id=batch.id, accepted=len(run.accepted), problems=len(run.problems))
    return SubmittedBatch(batch, run.accepted, run.problems, replayed=run.batch_id != new.id)


@contextmanager
def _one_at_a_time(new: NewBatch) -> Iterator[None]:
    """Let the same request wait while it is under way: what the first one accepts, the next only finds.

    Else both would store the same images, one over the other.
    """
    if new.idempotency is None:
        yield
        return
    with _TURNS_GUARD:
        turn = _TURNS.setdefault(new.idempotency.key, threading.Lock())
    with turn:
        yield


def member_id(batch_id: str, name: str) -> str:
    """Return the id of a job: the same for the same item, and not to be guessed without its batch's."""
    return str(uuid.UUID(bytes=hashlib.sha256(f"{batch_id}\n{name}".encode()).digest()[:16]))


def _check_names(intake: Intake) -> None:
    counted = Counter(item.name for item in intake.items)
    if len(counted) < len(intake.items):
        repeated = ", ".join(repr(name) for name, number in counted.most_common(5) if number > 1)
        raise CustomIdRepeated(f"Expected a name for each item. Received more than once: {repeated}")


def _accept(run: _Run, items: Sequence[Item]) -> None:
    """Accept some items, or note why not; never raises for one of them."""
    ready = list(_sound(run, items))
    if not ready:
        return
    try:
        _accept_sound(run, ready)
    except Unavailable as error:
        if run.batch_id is None:
            raise
        # Some of these may have been accepted: a repetition of the request finds them.
        run.stopped_by = error
        known = {name for name, _ in run.accepted} | {name for name, _ in run.problems}
        run.problems += [(one.item.name, error) for one in ready if one.item.name not in known]


def _sound(run: _Run, items: Sequence[Item]) -> Iterator[_Checked]:
    """Yield the items that are images, as long as anything is tried."""
    for item, found in zip(items, run.pool.map(lambda item: _check(run, item), items), strict=True):
        if isinstance(found, HistoQueueError):
            run.problems.append((item.name, found))
        else:
            yield found


def _check(run: _Run, item: Item) -> _Checked | HistoQueueError:
    if problem := item.problem or run.stopped_by:
        return problem
    try:
        with run.intake.open(item) as file:
            return _Checked(item, checked_image(file, run.settings))
    except CallerError as error:
        # What it came from holds all that was read of the image, and is told to nobody.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    except HistoQueueError as error:
        return error


def _accept_sound(run: _Run, ready: Sequence[_Checked]) -> None:
    services = run.services
    batch_id = run.batch_id or _begin(run, ready)
    ids = {one.item.name: member_id(batch_id, one.item.name) for one in ready}
    unknown = set(services.jobs.unknown(list(ids.values())))
    run.accepted += [(name, job_id) for name, job_id in ids.items() if job_id not in unknown]
    pairs = [(one, _describe(run, one)) for one in ready if ids[one.item.name] in unknown]
    if not pairs:
        return
    answered_by = _answers(run, [new for _, new in pairs])
    BatchArchive(services.objects).put_members(batch_id, [new.id for _, new in pairs])
    answered = _answer(run, [new for _, new in pairs if new.id in answered_by], answered_by)
    left = [pair for pair in pairs if pair[1].id not in answered]
    if left:
        # Asked before the images are stored: a full queue, or a ledger that is away, then leaves none behind.
        _check_room(run)
    stored = list(run.pool.map(lambda pair: _store(run, *pair), left))
    run.problems += [
        (one.item.name, found)
        for (one, _), found in zip(left, stored, strict=True)
        if isinstance(found, HistoQueueError)
    ]
    crash_point("api.batch_stored")
    _record(run, [new for new in stored if isinstance(new, NewJob)])
    crash_point("api.batch_recorded")


def _answers(run: _Run, news: Sequence[NewJob]) -> dict[str, str]:
    """Return, by the new job's id, the earlier job that has answered its image."""
    if not (run.options.cache and run.settings.cache_answers):
        return {}
    found = run.services.jobs.answered_by([new.spec.answer_key or "" for new in news])
    return {new.id: other for new, other in zip(news, found, strict=True) if other is not None}


def _answer(run: _Run, news: list[NewJob], answered_by: dict[str, str]) -> set[str]:
    """End jobs with what earlier ones have found in the same images; return the ids of those that are."""
    services = run.services
    if not news:
        return set()
    check_memory(services.jobs)
    made = services.jobs.answer_many(news, [answered_by[new.id] for new in news])
    done = [job for job in made if job is not None]
    if done:
        # No upload brings these back should Redis lose its data now; the answer does not hold their results.
        Archive(services.objects).put_all(done, run.pool)
        count_cached(len(done))
    run.accepted += [(job.spec.custom_id or "", job.id) for job in done]
    return {job.id for job in done}


def _record(run: _Run, news: list[NewJob]) -> None:
    services, settings = run.services, run.settings
    made = services.jobs.create_many(news, settings.max_open_jobs, settings.max_open_jobs_per_key)
    for new, job in zip(news, made, strict=True):
        name = new.spec.custom_id or ""
        if isinstance(job, HistoQueueError):
            if isinstance(job, QueueFull):
                # Only a refusal is certain; else the record may have been written.
                discard(services, new.spec.input.key)
            run.problems.append((name, job))
            run.stopped_by = job if isinstance(job, Unavailable) else run.stopped_by
        else:
            run.accepted.append((name, job.id))


def _begin(run: _Run, ready: Sequence[_Checked]) -> str:
    """Begin the batch, or find it by its key: in the ledger, and where that is rebuilt from."""
    services, new = run.services, run.new
    lack = None if _answers(run, [_describe(run, one) for one in ready]) else _lack_of_room(run)
    if lack and new.idempotency is None:
        raise lack
    # A repetition goes on without room, and so does what is known, if there is memory for it.
    may_only_be_found = lack is not None or is_full(services.jobs)
    try:
        batch_id = founded(services, lambda: services.jobs.create_batch(new, is_full=may_only_be_found))
    except JobStoreFull as error:
        raise lack or error from None
    archive = BatchArchive(services.objects)
    # The request that began it may have ended in between.
    if batch_id == new.id or not archive.has(batch_id):
        archive.put(new.model_copy(update={"id": batch_id}), wall_clock_ms())
    crash_point("api.batch_begun")
    run.batch_id = batch_id
    return batch_id


def _lack_of_room(run: _Run) -> Unavailable | None:
    """Return why nothing is to be begun now, before anything is."""
    try:
        _check_room(run)
    except Unavailable as error:
        return error
    return None


def _check_room(run: _Run) -> None:
    check_room(run.services, run.settings, run.services.jobs.admission(run.owner), run.owner)


def _describe(run: _Run, one: _Checked) -> NewJob:
    job_id = member_id(run.batch_id or "", one.item.name)
    spec = JobSpec(
        model=run.model,
        input=input_of(one.image, job_id, run.options.mpp),
        custom_id=one.item.name,
        request_id=run.request_id,
        owner=run.owner,
        priority=Priority.BULK,
        batch=run.batch_id,
    )
    return new_job(job_id, spec, run.settings, run.options.expires_in)


def _store(run: _Run, one: _Checked, new: NewJob) -> NewJob | HistoQueueError:
    """Store an item's image with its job behind it."""
    try:
        with run.intake.open(one.item) as file:
            seal(file, AcceptedJob(job=new, accepted_at_ms=wall_clock_ms()))
            run.services.objects.put(new.spec.input.key, file, one.image.media_type)
    except HistoQueueError as error:
        return error
    return new


def _nothing_accepted(run: _Run) -> HistoQueueError:
    """Return why: a store or the queue, if that is at fault for any item, and else the items."""
    for _, problem in run.problems:
        if isinstance(problem, Unavailable):
            return problem
    return NothingValid(
        f"Expected at least one item that is an image. None of {len(run.problems)} is.", run.problems
    )
