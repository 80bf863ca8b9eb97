"""The results of a batch as lines of text: NDJSON, CSV or GeoJSON, some members in memory at a time."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

from api.representation import job_json
from shared.job_store import JobStore
from shared.representation import NOTICE
from shared.schemas import Job

#: Members in one page.
MOST_RESULTS = 10_000
#: Members that are read together.
AT_ONCE = 200
MEDIA_TYPES = {
    "ndjson": "application/x-ndjson; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "geojson": "application/geo+json; charset=utf-8",
}
_COLUMNS = (
    *("custom_id", "status", "class", "label", "confidence", "cancer_probability", "verdict", "reasons"),
    *("probabilities", "width", "height", "input_sha256", "model", "model_version", "job_id", "attempt"),
    *("created_at", "finished_at", "error_code", "error_detail", "notice"),
)
#: A spreadsheet runs a cell that begins like this as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: Where a tile lies, in pixels of its slide, by its name: x512_y1024, or [x=512,y=1024,w=256,h=256].
_PLACE = re.compile(r"x[=_]?(\d{1,9})[,_-]{1,2}y[=_]?(\d{1,9})(?:,w=(\d{1,9}),h=(\d{1,9}))?")
#: Red, green, blue; colours that people with any colour vision tell apart (Okabe and Ito).
_COLOURS = {
    "lung_n": (0, 158, 115),
    "lung_aca": (213, 94, 0),
    "lung_scc": (0, 114, 178),
    "indeterminate": (240, 228, 66),
    "rejected": (153, 153, 153),
    "failed": (0, 0, 0),
}
_OTHER = (204, 121, 167)


def lines(jobs: JobStore, batch_id: str, start: int, count: int, form: str) -> Iterator[str]:
    """Return the members that ended as the ends from `start` on, in this form; each job once.

    Raises:
        Unavailable: if the ledger is away, here and while the lines are read.
    """
    ended = _ended(jobs, batch_id, start, count)
    # Read now, while the answer may still be another one.
    first = list(islice(ended, 1))
    return _WRITERS[form](chain(first, ended))


def _ended(jobs: JobStore, batch_id: str, start: int, count: int) -> Iterator[Job]:
    for first in range(start, start + count, AT_ONCE):
        yield from jobs.ended(batch_id, first, min(AT_ONCE, start + count - first))


def _ndjson(ended: Iterator[Job]) -> Iterator[str]:
    for job in ended:
        yield json.dumps({**job_json(job), "notice": NOTICE}, ensure_ascii=False) + "\n"


def _csv(ended: Iterator[Job]) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.DictWriter(line, _COLUMNS, restval="")
    writer.writeheader()
    yield line.getvalue()
    for job in ended:
        line.seek(0)
        line.truncate()
        writer.writerow({name: _cell(value) for name, value in _row(job_json(job)).items()})
        yield line.getvalue()


def _row(job: dict[str, Any]) -> dict[str, Any]:
    result, error = job["result"] or {}, job["error"] or {}
    named = ("class", "label", "confidence", "cancer_probability", "verdict")
    return {
        **{name: result.get(name) for name in named},
        **{name: job[name] for name in ("custom_id", "status", "attempt", "created_at", "finished_at")},
        "reasons": ";".join(result.get("reasons", ())),
        "probabilities": json.dumps(result["probabilities"]) if result.get("probabilities") else None,
        "width": job["input"]["width"],
        "height": job["input"]["height"],
        "input_sha256": job["input"]["sha256"],
        "model": job["model"]["name"],
        "model_version": job["model"]["version"],
        "job_id": job["id"],
        "error_code": error.get("code"),
        "error_detail": error.get("detail"),
        "notice": NOTICE,
    }


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _geojson(ended: Iterator[Job]) -> Iterator[str]:
    yield f'{{"type": "FeatureCollection", "notice": {json.dumps(NOTICE)}, "features": ['
    separator, unplaced = "\n", []
    for job in ended:
        geometry = _geometry(job)
        if geometry is None:
            # QuPath reads no file in which any feature has none.
            unplaced.append(job.spec.custom_id)
            continue
        yield separator + json.dumps(_feature(job, geometry))
        separator = ",\n"
    yield f'\n], "unplaced": {json.dumps(unplaced)}}}\n'


def _feature(job: Job, geometry: dict[str, Any]) -> dict[str, Any]:
    """Return a tile as QuPath reads it."""
    result = job.result or {}
    name = _class_of(job)
    figures = {
        **{key: result.get(key) for key in ("confidence", "cancer_probability")},
        **{f"probability {key}": value for key, value in (result.get("probabilities") or {}).items()},
        **{f"gate {key}": value for key, value in result.get("quality", {}).items()},
    }
    return {
        "type": "Feature",
        # QuPath takes a UUID for the object's own.
        "id": job.id,
        "geometry": geometry,
        "properties": {
            "objectType": "tile",
            "name": job.spec.custom_id,
            "classification": {"name": name, "color": list(_COLOURS.get(name, _OTHER))},
            "measurements": {key: value for key, value in figures.items() if value is not None},
            "metadata": {
                "status": job.status.value,
                "verdict": str(result.get("verdict", "")),
                "reasons": ", ".join(result.get("reasons", ())),
                "model": f"{job.spec.model.name} {job.spec.model.version}",
                "error": f"{job.error.code}: {job.error.detail}" if job.error else "",
                "notice": NOTICE,
            },
        },
    }


def _class_of(job: Job) -> str:
    """Return a tile's class: what the model says only where it is sure of it."""
    result = job.result or {}
    unsure = result.get("verdict") in ("indeterminate", "rejected")
    return str(result["verdict"] if unsure else result.get("class", "failed"))


def _geometry(job: Job) -> dict[str, Any] | None:
    place = _PLACE.search(job.spec.custom_id or "")
    if place is None:
        return None
    left, top = int(place[1]), int(place[2])
    width, height = int(place[3] or job.spec.input.width), int(place[4] or job.spec.input.height)
    right, bottom = left + width, top + height
    corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [corners]}


_WRITERS: dict[str, Callable[[Iterator[Job]], Iterator[str]]] = {
    "ndjson": _ndjson,
    "csv": _csv,
    "geojson": _geojson,
}
