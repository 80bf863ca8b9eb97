"""Many files in, result files out: resumable, at the server's pace, with a few tiles in memory."""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import _flows as flows
from ._errors import (
    AccessDenied,
    HistoQueueError,
    InvalidRequest,
    JobNotFound,
    NotSupported,
    QueueFull,
    ResultExpired,
    Unavailable,
    UnknownModelVersion,
)
from ._export import write_csv, write_ndjson, written_whole
from ._geojson import Layout, write_geojson
from ._journal import Entry, Item, Journal, discard
from ._pool import run_over
from ._rows import entry_of_job, entry_of_refusal, entry_of_unreadable
from ._scan import scan
from ._upload import Upload, media_type

if TYPE_CHECKING:
    from ._client import Client
    from ._jobs import Job

#: A larger file becomes a row with its error; several are in memory at a time.
MOST_BYTES = 256_000_000
FORMATS = (".csv", ".ndjson", ".jsonl", ".geojson")
_TICK_SECONDS = 0.5
#: What would fail for every file ends the run and makes no row.
_ENDS_THE_RUN = (Unavailable, AccessDenied, InvalidRequest, UnknownModelVersion, NotSupported)


@dataclass(frozen=True)
class Summary:
    """What became of the files of a run, those of earlier calls included."""

    total: int
    succeeded: int
    #: How many failed, by code.
    failures: Mapping[str, int] = field(default_factory=dict)
    #: Files that this call did, and for how long it did so.
    done_now: int = 0
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """How many failed for whatever reason."""
        return sum(self.failures.values())

    @property
    def pending(self) -> int:
        """How many are still to be done."""
        return self.total - self.succeeded - self.failed


class Progress(Protocol):
    """Is told how far a run is, about twice a second."""

    def show(self, summary: Summary, is_last: bool = False) -> None:
        """Show it."""


class Bulk:
    """One run over some files.

    Args:
        client: whom to ask.
        sources: folders, files, patterns, or `-` for a list on standard input.
        outs: the files to write; the ending of each says its format.
        options: of every submission.
        concurrency: how many tiles are on their way at once.
        layout: where the tiles lie; needed for GeoJSON.
        journal: where the run is remembered, by default beside the first file.
        heatmaps: a folder for heat maps, which needs the option `explain`.

    Raises:
        ValueError: if a format is not known, or needs what was not given.
    """

    def __init__(  # noqa: PLR0913 - the one place where all of a run is stated
        self,
        client: Client,
        sources: Sequence[str],
        outs: Sequence[Path],
        options: Mapping[str, Any],
        *,
        concurrency: int = 32,
        layout: Layout | None = None,
        journal: Path | None = None,
        heatmaps: Path | None = None,
        retry_failed: bool = False,
        restart: bool = False,
        progress: Progress | None = None,
    ) -> None:
        for out in outs:
            if out.suffix.lower() not in FORMATS:
                raise ValueError(f"Expected a file ending in {', '.join(FORMATS)}. Received: {out}")
            if out.suffix.lower() == ".geojson" and layout is None:
                raise ValueError(f"Expected --coordinates or --manifest, to place the tiles in {out}.")
            if not out.absolute().parent.is_dir():
                raise ValueError(f"Expected a folder that exists. Received: {out.parent}")
        self._client, self._sources, self._outs, self._options = client, sources, outs, options
        # Not among the options that a journal is kept by: it changes no answer.
        self._priority: dict[str, Any] = {} if "priority" in options else {"priority": "bulk"}
        self._concurrency, self._layout, self._heatmaps = concurrency, layout, heatmaps
        self._retry_failed, self._restart, self._progress = retry_failed, restart, progress
        self.journal_path = journal or Path(f"{outs[0]}.journal")

    def run(self) -> Summary:
        """Do what is to be done, then write the files.

        Raises:
            Unavailable: if the server was away for longer than the client's patience; run again to go on.
            HistoQueueError: if no file could succeed, by the options or the key.
            JournalError: if the journal is of another run, or in use.
        """
        if self._restart:
            discard(self.journal_path)
        with Journal(self.journal_path, self._options) as journal:
            if self._retry_failed:
                journal.retry_failed()
            journal.add(scan(self._sources))
            self._run = journal.run
            summary = self._submit_all(journal)
            for out in self._outs:
                self._write(out, journal)
        return summary

    def _submit_all(self, journal: Journal) -> Summary:
        began = time.monotonic()
        counts = {code: number for code, number in journal.counts().items() if code is not None}
        total, before = sum(journal.counts().values()), sum(counts.values())

        def summary() -> Summary:
            failures = {code: number for code, number in sorted(counts.items()) if code}
            done = sum(counts.values()) - before
            return Summary(total, counts.get("", 0), failures, done, time.monotonic() - began)

        looked_at = time.monotonic()
        try:
            for entry in run_over(self._do, journal.pending(), self._concurrency, _TICK_SECONDS):
                if entry is not None:
                    journal.record(entry)
                    counts[entry.code] = counts.get(entry.code, 0) + 1
                if time.monotonic() - looked_at >= _TICK_SECONDS:
                    looked_at = time.monotonic()
                    journal.commit()
                    self._show(summary())
        finally:
            self._show(summary(), is_last=True)
        journal.commit()
        return summary()

    def _show(self, summary: Summary, is_last: bool = False) -> None:
        if self._progress:
            self._progress.show(summary, is_last)

    def _do(self, item: Item) -> Entry:
        """Return what became of one file; runs in a thread of its own."""
        try:
            body = _read(Path(item.path))
        except (OSError, ValueError) as error:
            return entry_of_unreadable(item.path, error)
        try:
            job = self._job(item, body)
        except _ENDS_THE_RUN:
            raise
        except HistoQueueError as error:
            return entry_of_refusal(item.path, error)
        return entry_of_job(item.path, job.record)

    def _job(self, item: Item, body: bytes) -> Job:
        upload = Upload(body, media_type(body))
        key = idempotency_key(self._run, item, body)
        try:
            job = self._finished(upload, key)
        except (ResultExpired, JobNotFound):
            # Done by an earlier call so long ago that the server has dropped the result.
            job = self._finished(upload, f"{key}-again")
        if self._heatmaps is not None:
            keep_heatmap(job, self._heatmaps)
        return job

    def _finished(self, upload: Upload, key: str) -> Job:
        while True:
            try:
                return self._submitted(upload, key).wait()
            except QueueFull as error:
                # Not away, only busy: that is no reason to give up, however long it takes.
                time.sleep(self._client.patience.pause_seconds(0, error.retry_after_seconds or 1.0))

    def _submitted(self, upload: Upload, key: str) -> Job:
        """Submit as one of many; a server that knows no priorities is asked without."""
        options = {**self._options, **self._priority}
        try:
            return self._client.submit(
                upload.body, wait=flows.LONGEST_WAIT_SECONDS, idempotency_key=key, **options
            )
        except InvalidRequest as error:
            if "priority" not in options or "'priority'" not in str(error):
                raise
            self._priority = {}
            return self._submitted(upload, key)

    def _write(self, out: Path, journal: Journal) -> None:
        with written_whole(out) as file:
            if out.suffix.lower() == ".csv":
                write_csv(file, journal.rows)
            elif self._layout is not None and out.suffix.lower() == ".geojson":
                write_geojson(file, journal.rows, self._layout)
            else:
                write_ndjson(file, journal.rows)


def keep_heatmap(job: Job, folder: Path) -> None:
    """Write a job's heat map into the folder; an image without a class has none."""
    if job.result is not None and job.result.class_name is not None:
        (folder / f"{job.id}.png").write_bytes(job.heatmap())


def idempotency_key(run: str, item: Item, body: bytes) -> str:
    """Return the key of one file's job: the same after any crash, another for another content.

    It tells the server nothing of the file's name.
    """
    content = hashlib.sha256(body).hexdigest()
    text = f"{run}\n{item.attempt}\n{content}\n".encode() + item.path.encode("utf-8", "surrogateescape")
    return f"{run}-{hashlib.sha256(text).hexdigest()[:32]}"


def _read(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes, received {status.st_size}")
    return path.read_bytes()
