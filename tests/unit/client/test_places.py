"""Where a tile lies on its slide, as QuPath reads it."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from histoqueue import Client
from histoqueue._geojson import Layout, feature
from histoqueue._places import Manifest, NamePattern

from tests.factories import png_bytes
from tests.unit.client.conftest import run


@pytest.mark.parametrize("places", ["pattern", "table"])
def test_a_name_that_is_no_text_has_its_place(places: str, client: Client, tiles: Path) -> None:
    """It is found by its name as the results show it, and costs no other tile its place."""
    Path(os.fsdecode(os.fsencode(str(tiles)) + b"/x9_y9_\xe4.png")).write_bytes(png_bytes())
    Path("places.csv").write_text("file,x,y\nx9_y9_\\xe4.png,9,9\nx0_y0.png,0,0\n")
    of_table = places == "table"
    finder = Manifest(Path("places.csv")) if of_table else NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)")
    run(client, "tiles", outs=("r.geojson",), layout=Layout(finder))
    found = json.loads(Path("r.geojson").read_text())["features"]
    assert len(found) == (2 if of_table else 4)
    assert "tiles/x9_y9_\\xe4.png" in [one["properties"]["name"] for one in found]


def test_a_tile_lies_where_its_name_or_the_table_says(client: Client, bad_tiles: Path) -> None:
    """As a closed polygon in pixels of the slide, y downwards."""
    Path("places.csv").write_text(
        "file,x,y,w,h\nx0_y0.png,10,20,,\ntiles/broken.png,100,200,30,40\nother.png,1,1,1,1\n"
    )
    run(client, "tiles", outs=("r.geojson",), layout=Layout(Manifest(Path("places.csv")), downsample=4))
    features = {
        one["properties"]["name"]: one for one in json.loads(Path("r.geojson").read_text())["features"]
    }
    assert set(features) == {"tiles/x0_y0.png", "tiles/broken.png"}
    assert features["tiles/x0_y0.png"]["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[10, 20], [266, 20], [266, 212], [10, 212], [10, 20]]],
    }
    assert features["tiles/broken.png"]["geometry"]["coordinates"][0][2] == [130, 240]


def test_qupath_finds_what_it_reads(client: Client, tiles: Path) -> None:
    """Object type, class with colour, measurements as numbers, and a UUID of the object's own."""
    layout = Layout(NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)"))
    run(client, "tiles", outs=("r.geojson",), layout=layout)
    first, *others = json.loads(Path("r.geojson").read_text())["features"]
    assert first["type"] == "Feature"
    properties = first["properties"]
    assert properties["objectType"] == "tile"
    assert properties["classification"] == {"name": "lung_aca", "color": [213, 94, 0]}
    assert properties["measurements"]["probability lung_scc"] == 0.017
    assert properties["measurements"]["confidence"] == 0.972
    assert properties["measurements"]["gate sharpness"] == 214.0
    assert all(isinstance(value, float) for value in properties["measurements"].values())
    assert all(isinstance(value, str) for value in properties["metadata"].values())
    assert len({one["id"] for one in [first, *others]}) == 3


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"status": "succeeded", "result": {"class": "lung_n", "verdict": "classified"}}, "lung_n"),
        ({"status": "succeeded", "result": {"class": "colon_n", "verdict": "classified"}}, "colon_n"),
        ({"status": "succeeded", "result": {"class": "lung_n", "verdict": "indeterminate"}}, "indeterminate"),
        ({"status": "succeeded", "result": {"class": None, "verdict": "rejected"}}, "rejected"),
        ({"status": "failed", "result": None, "error": {"code": "POISON", "detail": "x"}}, "failed"),
    ],
)
def test_a_tile_has_a_class_only_where_the_model_is_sure(row: dict[str, Any], name: str) -> None:
    """Background never gets one."""
    found = feature("x1_y2.png", row, Layout(NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)"), tile_size=(8, 8)))
    assert found is not None
    assert found["properties"]["classification"]["name"] == name
    assert len(found["properties"]["classification"]["color"]) == 3


def test_the_size_of_an_image_counts_before_the_one_that_is_stated() -> None:
    """A tile at the slide's border is smaller; what was never looked at has no other size."""
    layout = Layout(NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)"), tile_size=(256, 256))
    border = feature("x0_y0.png", {"input": {"width": 100, "height": 256}}, layout)
    unread = feature("x0_y0.png", {"status": "unreadable"}, layout)
    assert border is not None
    assert unread is not None
    assert border["geometry"]["coordinates"][0][2] == [100, 256]
    assert unread["geometry"]["coordinates"][0][2] == [256, 256]
    for image in ({"width": 100}, {"height": 256}, {}):
        assert feature("x0_y0.png", {"input": image}, Layout(layout.places)) is None


@pytest.mark.parametrize(
    "text",
    [
        "file,x\na,1\n",
        "file,x,y\na,1,north\n",
        "file,x,y\na,nan,1\n",
        "file,x,y,w,h\na,1,1,inf,1\n",
        "x,y,file\n1,1\n",
        'file,x,y\n"a,1,1\n' + "b,1,1\n" * 30_000,
    ],
)
def test_a_table_of_places_is_checked(text: str, tmp_path: Path) -> None:
    """Before anything is submitted."""
    path = tmp_path / "places.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="Expected"):
        Manifest(path)


def test_a_table_of_places_is_closed_with_its_last_holder(tmp_path: Path) -> None:
    """Python 3.13 warns of a database that is not."""
    path = tmp_path / "places.csv"
    path.write_text("file,x,y\na.png,0,0\n")
    table = Manifest(path)
    database = table._db
    del table
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")


def test_a_table_of_places_in_another_encoding_is_named(tmp_path: Path) -> None:
    """As a spreadsheet's "Unicode text" is."""
    path = tmp_path / "places.csv"
    path.write_text("file,x,y\na,1,1\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"Expected a table in \S+places.csv. Received: 'utf-8' codec"):
        Manifest(path)


@pytest.mark.parametrize("pattern", ["x(", r"(?P<x>\d+)"])
def test_a_pattern_of_places_is_checked(pattern: str) -> None:
    """So is what finds them in a name."""
    with pytest.raises(ValueError, match="Expected"):
        NamePattern(pattern)
