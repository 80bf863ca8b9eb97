"""Many files in, result files out: resumable, at the server's pace, with what is on its way in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ._export import write_csv, write_ndjson, written_whole
from ._geojson import Layout, write_geojson
from ._journal import Journal
from ._pool import check_concurrency, run_over
from ._scan import SUFFIXES, check, scan
from ._sender import Sender

if TYPE_CHECKING:
    from ._client import Client

#: So many requests are on their way at once, each with its part of the tiles, or with one and held back.
PARCELS_AT_ONCE = 4
SINGLES_AT_ONCE = 32
#: A parcel of larger tiles has fewer of them.
PARCEL_BYTES = 8_000_000
FORMATS = (".csv", ".ndjson", ".jsonl", ".geojson")
_TICK_SECONDS = 0.5


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
        ValueError: if a format is not known or needs what was not given, or a file cannot be where it shall.
    """

    def __init__(  # noqa: PLR0913 - the one place where all of a run is stated
        self,
        client: Client,
        sources: Sequence[str],
        outs: Sequence[Path],
        options: Mapping[str, Any],
        *,
        concurrency: int,
        layout: Layout | None = None,
        journal: Path | None = None,
        heatmaps: Path | None = None,
        retry_failed: bool = False,
        restart: bool = False,
        progress: Progress | None = None,
    ) -> None:
        check_concurrency(concurrency)
        for out in outs:
            if out.suffix.lower() not in FORMATS:
                raise ValueError(f"Expected a file ending in {', '.join(FORMATS)}. Received: {out}")
            if out.suffix.lower() == ".geojson" and layout is None:
                raise ValueError(f"Expected --coordinates or --manifest, to place the tiles in {out}.")
            if journal and journal.resolve() == out.resolve():
                raise ValueError(f"Expected a journal apart from the results. Received for both: {out}")
            if out.is_dir():
                raise ValueError(f"Expected a file to write results to. Received the folder {out}")
        for path in [*outs, *([journal] if journal else [])]:
            _check_folder_of(path)
        for source in sources:
            if heatmaps and Path(source).is_dir() and _is_in(heatmaps, Path(source)):
                # They would be the next call's tiles.
                raise ValueError(f"Expected a folder for heat maps outside of {source}. Received: {heatmaps}")
        self._client, self._sources, self._outs, self._options = client, sources, outs, options
        self._concurrency, self._layout, self._heatmaps = concurrency, layout, heatmaps
        self._retry_failed, self._restart, self._progress = retry_failed, restart, progress
        self.journal_path = journal or Path(f"{outs[0]}.journal")
        #: Whether the journal holds what came of any file.
        self.has_answers = False

    def run(self) -> Summary:
        """Do what is to be done, then write the files.

        Raises:
            Unavailable: if the server was away for longer than the client's patience; run again to go on.
            HistoQueueError: if no file could succeed, by the options or the key.
            JournalError: if the journal is of another run, or in use.
            ValueError: if a source is neither there nor a pattern that matches, or if they hold no file.
        """
        check(self._sources)
        with Journal(self.journal_path, self._options, self._restart) as journal:
            if self._retry_failed:
                journal.retry_failed()
            journal.add(scan(self._sources))
            if not journal.counts() and "-" not in self._sources:
                expected = f"files ending in {', '.join(SUFFIXES)} in {', '.join(self._sources)}"
                raise ValueError(f"Expected {expected}. Received none.")
            summary = self._submit_all(journal)
            for out in self._outs:
                self._write(out, journal)
        return summary

    def _submit_all(self, journal: Journal) -> Summary:
        began = time.monotonic()
        counts = {code: number for code, number in journal.counts().items() if code is not None}
        total, before = sum(journal.counts().values()), sum(counts.values())
        self.has_answers = before > 0

        def summary() -> Summary:
            failures = {code: number for code, number in sorted(counts.items()) if code}
            done = sum(counts.values()) - before
            return Summary(total, counts.get("", 0), failures, done, time.monotonic() - began)

        sender = Sender(self._client, journal.run, self._options, self._heatmaps)
        in_batches = sender.takes_batches and journal.takes_parcels
        requests = min(self._concurrency, PARCELS_AT_ONCE if in_batches else SINGLES_AT_ONCE)
        parcels = journal.parcels(self._concurrency // requests if in_batches else 1, PARCEL_BYTES)
        looked_at = time.monotonic()
        try:
            for entries in run_over(sender.entries_of, parcels, requests, _TICK_SECONDS):
                for entry in entries or ():
                    journal.record(entry)
                    self.has_answers = True
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

    def _write(self, out: Path, journal: Journal) -> None:
        with written_whole(out) as file:
            if out.suffix.lower() == ".csv":
                write_csv(file, journal.rows)
            elif self._layout is not None and out.suffix.lower() == ".geojson":
                write_geojson(file, journal.rows, self._layout)
            else:
                write_ndjson(file, journal.rows)


def _check_folder_of(path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"Expected a folder that exists. Received: {path.parent}")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"Expected a folder that can be written to. Received: {path.parent}")


def _is_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
