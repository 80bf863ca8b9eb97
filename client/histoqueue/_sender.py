"""What becomes of some files of a run: sent together where the server takes batches, else one by one."""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import _flows as flows
from ._errors import (
    FOR_EVERY_IMAGE,
    BatchNotFound,
    HistoQueueError,
    InvalidRequest,
    JobNotFound,
    NotSupported,
    QueueFull,
    ResultExpired,
    error_for,
)
from ._http import FormFile
from ._journal import Entry, Item
from ._rows import entry_of_job, entry_of_refusal, entry_of_unreadable, entry_without_heatmap
from ._upload import media_type

if TYPE_CHECKING:
    from ._client import Client
    from ._jobs import Job

#: A larger file becomes a row with its error; several are in memory at a time.
MOST_BYTES = 256_000_000
#: What a whole batch can be told; with any other option each file goes by itself.
_OPTIONS_OF_BATCHES = frozenset({"model_version", "mpp", "expires_in", "cache"})
#: The server dropped what an earlier call had done.
_DROPPED = (ResultExpired, JobNotFound, BatchNotFound)
T = TypeVar("T")


class _Loaded(NamedTuple):
    item: Item
    body: bytes


class Sender:
    """Sends the files of one run; safe in several threads.

    Args:
        client: whom to ask.
        run: the run's id, which every idempotency key begins with.
        options: of every submission.
        heatmaps: a folder for heat maps, which needs the option `explain`.
    """

    def __init__(self, client: Client, run: str, options: Mapping[str, Any], heatmaps: Path | None) -> None:
        self._client, self._run, self._options, self._heatmaps = client, run, options, heatmaps
        # Not among the options that a journal is kept by: it changes no answer.
        self._priority: dict[str, Any] = {} if "priority" in options else {"priority": "bulk"}
        #: Until the server says that it takes none.
        self.takes_batches = options.keys() <= _OPTIONS_OF_BATCHES
        #: From the acceptance of a batch to its last end, as the last one took.
        self._usual_seconds = 0.0

    def entries_of(self, parcel: Sequence[Item]) -> list[Entry]:
        """Return what became of each file of the parcel that is to be done."""
        entries: list[Entry] = []
        loaded: list[_Loaded] = []
        for item in parcel:
            try:
                body = _read(Path(item.path))
            except (OSError, ValueError) as error:
                entries.append(entry_of_unreadable(item.path, error))
                continue
            if row := _row_of_same(item, body):
                entries.append(Entry(item.path, "", row))
            else:
                loaded.append(_Loaded(item, body))
        entries += self._sent_together(loaded) if len(loaded) > 1 else self._sent_one_by_one(loaded)
        done = {item.path for item in parcel if item.is_done}
        return [entry for entry in entries if entry.path not in done]

    def _sent_together(self, loaded: Sequence[_Loaded]) -> list[Entry]:
        if self.takes_batches:
            try:
                return self._batched(loaded)
            except NotSupported:
                self.takes_batches = False
            except FOR_EVERY_IMAGE:
                raise
            except HistoQueueError:
                # Too much for this server in one request, or no image among them: each has its own answer.
                pass
        return self._sent_one_by_one(loaded)

    def _batched(self, loaded: Sequence[_Loaded]) -> list[Entry]:
        # Names by place: the server is told no file's name.
        files = [FormFile(str(at), body, media_type(body)) for at, (_, body) in enumerate(loaded)]
        keys = [idempotency_key(self._run, item, body) for item, body in loaded]
        key = f"{self._run}-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:32]}"
        jobs, problems = self._once_more_if_dropped(lambda key: self._batch(files, key), key)
        entries, left = [], []
        for file, one in zip(files, loaded):
            if file.name in jobs:
                entries.append(entry_of_job(one.item.path, jobs[file.name]))
            elif file.name in problems:
                entries.append(entry_of_refusal(one.item.path, problems[file.name]))
            else:
                left.append(one)  # somebody has deleted its job
        return entries + self._sent_one_by_one(left)

    def _batch(self, files: Sequence[FormFile], key: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the jobs of the files, which have ended, and the errors of those that have none."""
        client = self._client
        batch = self._however_full(
            lambda: client.run(flows.submit_batch(files, self._options, key, client.patience))
        )
        accepted_at = time.monotonic()
        jobs = client.run(flows.wait_for_batch(batch, client.patience, self._usual_seconds))
        self._usual_seconds = time.monotonic() - accepted_at
        return jobs, {name: error_for(problem) for name, problem in batch.problems.items()}

    def _sent_one_by_one(self, loaded: Sequence[_Loaded]) -> list[Entry]:
        return [self._entry(item, body) for item, body in loaded if not item.is_done]

    def _entry(self, item: Item, body: bytes) -> Entry:
        key = idempotency_key(self._run, item, body)
        entry = None
        try:
            job = self._once_more_if_dropped(lambda key: self._finished(body, key), key)
            entry = entry_of_job(item.path, job.record)
            if self._heatmaps is not None:
                keep_heatmap(job, self._heatmaps)
        except (*FOR_EVERY_IMAGE, NotSupported):
            raise  # it ends the run and makes no row
        except HistoQueueError as error:
            return entry_without_heatmap(entry, error) if entry else entry_of_refusal(item.path, error)
        return entry

    def _finished(self, body: bytes, key: str) -> Job:
        return self._however_full(lambda: self._submitted(body, key).wait())

    def _submitted(self, body: bytes, key: str) -> Job:
        """Submit as one of many; a server that knows no priorities is asked without."""
        options = {**self._options, **self._priority}
        try:
            return self._client.submit(body, wait=flows.LONGEST_WAIT_SECONDS, idempotency_key=key, **options)
        except InvalidRequest as error:
            if "priority" not in options or "'priority'" not in str(error):
                raise
            self._priority = {}
            return self._submitted(body, key)

    def _however_full(self, ask: Callable[[], T]) -> T:
        while True:
            try:
                return ask()
            except QueueFull as error:
                # Not away, only busy: that is no reason to give up, however long it takes.
                time.sleep(self._client.patience.pause_seconds(0, error.retry_after_seconds or 1.0))

    def _once_more_if_dropped(self, ask: Callable[[str], T], key: str) -> T:
        try:
            return ask(key)
        except _DROPPED:
            return ask(f"{key}-again")


def keep_heatmap(job: Job, folder: Path) -> Path | None:
    """Write a job's heat map into the folder and return where; None for an image without a class."""
    if job.result is None or job.result.class_name is None:
        return None
    path = folder / f"{job.id}.png"
    path.write_bytes(job.heatmap())
    return path


def idempotency_key(run: str, item: Item, body: bytes) -> str:
    """Return the key of one file's job: the same after any crash, another for another content.

    It tells the server nothing of the file's name.
    """
    content = hashlib.sha256(body).hexdigest()
    text = f"{run}\n{item.attempt}\n{content}\n".encode() + item.path.encode("utf-8", "surrogateescape")
    return f"{run}-{hashlib.sha256(text).hexdigest()[:32]}"


def _row_of_same(item: Item, body: bytes) -> Mapping[str, Any] | None:
    """Return what came of a file before it was touched, where that was a result for the same content."""
    row = item.earlier or {}
    known = (row.get("input") or {}).get("sha256")
    is_same = row.get("status") == "succeeded" and known == hashlib.sha256(body).hexdigest()
    return row if is_same else None


def _read(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes, received {status.st_size}")
    return path.read_bytes()
