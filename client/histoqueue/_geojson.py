"""Tiles as GeoJSON that QuPath imports by drag and drop: polygons with class, colour and measurements."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from ._export import RowSource, printable
from ._models import NOTICE
from ._places import Places

#: Red, green, blue; colours that people with any colour vision tell apart (Okabe and Ito).
_COLOURS = {
    "lung_n": (0, 158, 115),
    "lung_aca": (213, 94, 0),
    "lung_scc": (0, 114, 178),
    "indeterminate": (240, 228, 66),
    "rejected": (153, 153, 153),
    "failed": (0, 0, 0),
}
_OTHERS = ((230, 159, 0), (86, 180, 233), (204, 121, 167))
_FIGURES = ("confidence", "cancer_probability")


@dataclass(frozen=True)
class Layout:
    """How tiles lie on their slide."""

    places: Places
    #: Pixels of the slide at full resolution for one pixel of a tile.
    downsample: float = 1.0
    #: Size of a tile in pixels of the slide, where neither the place nor the image tells.
    tile_size: tuple[float, float] | None = None


def write_geojson(file: TextIO, rows: RowSource, layout: Layout) -> None:
    """Write a feature for each tile whose place is known; the others are listed in `unplaced`.

    QuPath leaves out what it does not know, such as `notice` and `unplaced`; so each feature has the notice.
    """
    file.write(f'{{"type": "FeatureCollection", "notice": {json.dumps(NOTICE)}, "features": [')
    separator = "\n"
    for path, row in rows():
        found = feature(path, row, layout)
        if found is not None:
            file.write(separator + json.dumps(found))
            separator = ",\n"
    file.write('\n], "unplaced": [')
    separator = "\n"
    for path, row in rows():
        if _corners(path, row, layout) is None:
            listed = {"file": printable(path), "status": row.get("status"), "error": row.get("error")}
            file.write(separator + json.dumps(listed))
            separator = ",\n"
    file.write("\n]}\n")


def feature(path: str, row: Mapping[str, Any], layout: Layout) -> dict[str, Any] | None:
    """Return a tile as a feature; None where its place or its size is not known."""
    corners = _corners(path, row, layout)
    if corners is None:
        return None
    result: Mapping[str, Any] = row.get("result") or {}
    name = _class_of(row, result)
    return {
        "type": "Feature",
        # QuPath takes a UUID for the object's own.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{printable(path)}\n{row.get('job_id')}")),
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {
            "objectType": "tile",
            "name": printable(path),
            "classification": {"name": name, "color": list(_colour(name))},
            "measurements": _measurements(result),
            "metadata": _metadata(row, result),
        },
    }


def _class_of(row: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return a tile's class: what the model says only where it is sure of it."""
    if row.get("status") != "succeeded":
        return "failed"
    if result.get("verdict") in ("indeterminate", "rejected"):
        return str(result["verdict"])
    return str(result.get("class") or "failed")


def _colour(name: str) -> tuple[int, int, int]:
    return _COLOURS.get(name) or _OTHERS[sum(name.encode()) % len(_OTHERS)]


def _measurements(result: Mapping[str, Any]) -> dict[str, float]:
    figures = {name: result.get(name) for name in _FIGURES}
    chances = {f"probability {name}": value for name, value in (result.get("probabilities") or {}).items()}
    gates = {f"gate {name}": value for name, value in (result.get("quality") or {}).items()}
    every = {**figures, **chances, **gates}
    return {name: float(value) for name, value in every.items() if isinstance(value, (int, float))}


def _metadata(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, str]:
    model, error = row.get("model") or {}, row.get("error") or {}
    values = {
        "status": row.get("status"),
        "verdict": result.get("verdict"),
        "reasons": ", ".join(result.get("reasons") or ()),
        "model": f"{model['name']} {model['version']}" if model else None,
        "job": row.get("job_id"),
        "error": f"{error['code']}: {error['detail']}" if error else None,
        "notice": NOTICE,
    }
    return {name: str(value) for name, value in values.items() if value}


def _corners(path: str, row: Mapping[str, Any], layout: Layout) -> list[list[float]] | None:
    place = layout.places.of(path)
    if place is None:
        return None
    image = row.get("input") or {}
    sizes = [image[name] * layout.downsample if image.get(name) else None for name in ("width", "height")]
    stated = layout.tile_size or (None, None)
    width = place.width or sizes[0] or stated[0]
    height = place.height or sizes[1] or stated[1]
    if not width or not height:
        return None
    left, top, right, bottom = place.x, place.y, place.x + width, place.y + height
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
