"""The `histoqueue` command: data on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from ._arguments import parser
from ._bulk import Bulk
from ._client import Client
from ._doctor import examine
from ._errors import (
    FOR_EVERY_IMAGE,
    CallerError,
    HistoQueueError,
    JobAlreadyFinal,
    JobFailed,
    JournalError,
    NotSupported,
    Unavailable,
)
from ._export import printable
from ._geojson import Layout
from ._jobs import Job, Mapped
from ._journal import Entry
from ._models import NOTICE
from ._places import Manifest, NamePattern
from ._progress import ProgressLine
from ._rows import entry_of_job, entry_of_refusal, entry_of_unreadable, entry_without_heatmap
from ._sender import keep_heatmap

ALL_SUCCEEDED, SOME_FAILED, USAGE, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 130
#: A run over very many files outlasts a restart of the server; whoever watches is told sooner.
_PATIENCE_SECONDS = {"submit": 300.0, "doctor": 0.0}


class Classified(NamedTuple):
    """What became of a file, and where its heat map is or why there is none."""

    entry: Entry
    heatmap: str = "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    chosen = parser().parse_args(arguments)
    _take_any_name()
    patience = _PATIENCE_SECONDS.get(chosen.command, 30.0) if chosen.patience is None else chosen.patience
    try:
        with Client(
            chosen.server, patience=patience, concurrency=getattr(chosen, "concurrency", 2)
        ) as client:
            status = _COMMANDS[chosen.command](client, chosen)
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough.
        return ALL_SUCCEEDED
    except (HistoQueueError, ValueError, OSError, sqlite3.Error, httpx2.InvalidURL, ImportError) as error:
        # The last two are about a proxy that the environment names.
        _say(f"error: {error}")
        return _status_of(error)
    finally:
        _drop_what_is_held_back()


def _drop_what_is_held_back() -> None:
    """Drop what nobody can be given: the interpreter would try it at its end, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _take_any_name() -> None:
    """Let standard input bring, and standard output take, names that their encoding does not know."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _status_of(error: Exception) -> int:
    if isinstance(error, (JobFailed, JobAlreadyFinal)):
        return SOME_FAILED
    if isinstance(error, NotSupported):
        return UNAVAILABLE
    if isinstance(error, (CallerError, JournalError)) or not isinstance(error, HistoQueueError):
        return USAGE
    return UNAVAILABLE


def _predict(client: Client, chosen: Namespace) -> int:
    options = _options(chosen)
    names = list(dict.fromkeys(chosen.files))
    found: dict[str, Classified] = {}
    try:
        for item in client.map(names, concurrency=chosen.concurrency, **options):
            name, entry = str(item.source), _entry(item)
            found[name] = Classified(entry)
            if item.job is not None and chosen.explain:
                found[name] = _with_heatmap(entry, item.job, chosen.explain)
    finally:
        # What was answered is shown, whatever ends it.
        if found:
            _show_classified([found[name] for name in names if name in found], chosen)
    return ALL_SUCCEEDED if all(entry.code == "" for entry, _ in found.values()) else SOME_FAILED


def _with_heatmap(entry: Entry, job: Job, folder: Path) -> Classified:
    """Keep the heat map, if there is one."""
    try:
        return Classified(entry, str(keep_heatmap(job, folder) or "-"))
    except (*FOR_EVERY_IMAGE, NotSupported):
        raise
    except HistoQueueError as error:
        entry = entry_without_heatmap(entry, error)
        return Classified(entry, entry.code)


def _show_classified(shown: Sequence[Classified], chosen: Namespace) -> None:
    if chosen.json:
        for entry, _ in shown:
            _print_json({"file": printable(entry.path), **entry.row, "notice": NOTICE})
        return
    table = [["FILE", "CLASS", "CONFIDENCE", "HEATMAP", "VERDICT"]]
    table += [_cells(entry, heatmap) for entry, heatmap in shown]
    if not chosen.explain:
        for row in table:
            del row[3]
    _print_table(table[0], table[1:])
    print(NOTICE)


def _entry(item: Mapped[Job]) -> Entry:
    path = str(item.source)
    if item.job is not None:
        return entry_of_job(path, item.job.record)
    if isinstance(item.error, HistoQueueError):
        return entry_of_refusal(path, item.error)
    assert item.error is not None  # noqa: S101 - one of the two is there
    return entry_of_unreadable(path, item.error)


def _cells(entry: Entry, heatmap: str) -> list[str]:
    path = printable(entry.path)
    result = entry.row.get("result")
    if entry.code and not result:
        return [path, "-", "-", heatmap, f"{entry.code}: {entry.row['error']['detail']}"]
    result = result or {}
    confidence = result.get("confidence")
    verdict = ", ".join([str(result.get("verdict") or "-"), *(result.get("reasons") or ())])
    shown = "-" if confidence is None else f"{confidence:.3f}"
    return [path, str(result.get("class") or "-"), shown, heatmap, verdict]


def _submit(client: Client, chosen: Namespace) -> int:
    bulk = Bulk(
        client,
        chosen.sources,
        chosen.out,
        _options(chosen),
        concurrency=chosen.concurrency,
        layout=_layout(chosen),
        journal=chosen.journal,
        heatmaps=chosen.explain,
        retry_failed=chosen.retry_failed,
        restart=chosen.restart,
        progress=None if chosen.quiet else ProgressLine(),
    )
    try:
        summary = bulk.run()
    except BaseException as error:
        goes_on = bulk.has_answers or isinstance(error, (KeyboardInterrupt, Unavailable))
        if goes_on and bulk.journal_path.exists() and not chosen.quiet:
            _say(f"What is done is kept in {bulk.journal_path}: the same command goes on from there.")
        raise
    return SOME_FAILED if summary.failed else ALL_SUCCEEDED


def _layout(chosen: Namespace) -> Layout | None:
    size = (chosen.tile_size, chosen.tile_size) if chosen.tile_size else None
    if chosen.coordinates is not None:
        return Layout(NamePattern(chosen.coordinates), chosen.downsample, size)
    if chosen.manifest is not None:
        if chosen.manifest.resolve() in [out.resolve() for out in chosen.out]:
            expected = "results in another file than the table of places"
            raise ValueError(f"Expected {expected}. Received for both: {chosen.manifest}")
        return Layout(Manifest(chosen.manifest), chosen.downsample, size)
    return None


def _options(chosen: Namespace) -> Any:
    options = {name: getattr(chosen, name) for name in ("model_version", "mpp", "expires_in")}
    if chosen.explain:
        chosen.explain.mkdir(parents=True, exist_ok=True)
        options["explain"] = True
    return {name: value for name, value in options.items() if value is not None}


def _status(client: Client, chosen: Namespace) -> int:
    return _show(client.get(chosen.id), chosen)


def _watch(client: Client, chosen: Namespace) -> int:
    job = client.get(chosen.id)
    if not job.is_final and not chosen.quiet:
        _say(f"{job.id} is {job.status}")
    return _show(job.wait(), chosen)


def _cancel(client: Client, chosen: Namespace) -> int:
    job = client.get(chosen.id).cancel()
    _show(job, chosen)
    return ALL_SUCCEEDED


def _show(job: Job, chosen: Namespace) -> int:
    if chosen.json:
        _print_json({**job.record.raw, "notice": NOTICE})
    else:
        for name, value in _lines(job):
            print(f"{name:<12}{value}")
        print(NOTICE)
    return SOME_FAILED if job.is_final and job.status != "succeeded" else ALL_SUCCEEDED


def _lines(job: Job) -> list[tuple[str, str]]:
    record, result = job.record, job.result
    lines = [("job", record.id), ("status", record.status)]
    if record.queue and record.queue.position is not None:
        lines.append(("ahead", str(record.queue.position)))
    if record.model:
        lines.append(("model", f"{record.model.name} {record.model.version}"))
    if result:
        known = (("class", result.class_name), ("confidence", result.confidence))
        lines += [(name, "-" if value is None else str(value)) for name, value in known]
        lines += [("verdict", ", ".join([result.verdict or "-", *result.reasons]))]
        lines += [(f"  {name}", str(value)) for name, value in result.probabilities.items()]
    if record.error:
        lines.append(("error", str(record.error)))
    return lines


def _models(client: Client, chosen: Namespace) -> int:
    found = client.models()
    if chosen.json:
        _print_json(found)
        return ALL_SUCCEEDED
    versions = found.get("versions") or []
    live = found.get("live")
    rows = [(str(one.get("version", one)) if isinstance(one, dict) else str(one),) for one in versions]
    _print_table(("VERSION", "LIVE"), [(row[0], "live" if row[0] == str(live) else "") for row in rows])
    print(NOTICE)
    return ALL_SUCCEEDED


def _doctor(client: Client, chosen: Namespace) -> int:
    is_well = True
    for finding in examine(client):
        is_well = is_well and finding.is_well is not False
        if chosen.json:
            _print_json(finding._asdict())
        else:
            mark = {True: "ok", False: "BAD", None: "-"}[finding.is_well]
            print(f"{mark:<4}{finding.what:<9}{finding.text}", flush=True)
    return ALL_SUCCEEDED if is_well else UNAVAILABLE


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [[_one_line(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for row in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())


def _print_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _say(text: str) -> None:
    if sys.stderr is None:
        return  # print would take standard output instead
    with contextlib.suppress(OSError):  # nobody reads it any more, which changes no status
        print(_one_line(text), file=sys.stderr, flush=True)


def _one_line(text: str) -> str:
    """Return a text with control characters as escapes: a file's name must not move the cursor."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


_COMMANDS: Mapping[str, Callable[[Client, Namespace], int]] = {
    "predict": _predict,
    "submit": _submit,
    "status": _status,
    "watch": _watch,
    "cancel": _cancel,
    "models": _models,
    "doctor": _doctor,
}
