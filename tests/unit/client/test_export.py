"""The files of results that a run writes."""

import json
import os
from pathlib import Path

import pytest
from histoqueue import Client
from histoqueue._geojson import Layout
from histoqueue._places import NamePattern

from tests.api_server import ApiServer
from tests.factories import png_bytes
from tests.unit.client.conftest import run, table


def test_every_export_says_what_it_is_not_for(client: Client, bad_tiles: Path) -> None:
    """A column, a member of each line, a member of the whole and of each tile."""
    layout = Layout(NamePattern(r"x(?P<x>\d+)_y(?P<y>\d+)"))
    run(client, "tiles", outs=("r.csv", "r.ndjson", "r.geojson"), layout=layout)
    notice = "Research use only, not for diagnostic use."
    assert {row["notice"] for row in table("r.csv").values()} == {notice}
    lines = [json.loads(line) for line in Path("r.ndjson").read_text().splitlines()]
    assert {line["notice"] for line in lines} == {notice}
    assert len(lines) == 6
    collection = json.loads(Path("r.geojson").read_text())
    assert collection["notice"] == notice
    assert {one["properties"]["metadata"]["notice"] for one in collection["features"]} == {notice}
    assert len(collection["features"]) + len(collection["unplaced"]) == 6


def test_a_spreadsheet_runs_no_formula_out_of_a_name(client: Client, tiles: Path) -> None:
    """A cell that begins like one is quoted."""
    Path("=HYPERLINK(1).png").write_bytes(png_bytes())
    run(client, "=HYPERLINK(1).png")
    assert list(table()) == ["'=HYPERLINK(1).png"]


def test_results_are_whole_or_not_there(client: Client, tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle leaves the file of the last run, and nothing beside it."""
    run(client, "tiles")
    whole = Path("results.csv").read_bytes()
    (tiles / "new.png").write_bytes(png_bytes())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            run(client, "tiles")
    assert Path("results.csv").read_bytes() == whole
    assert not list(Path().glob(".results*"))
    assert run(client, "tiles").done_now == 0


def test_results_may_be_read_by_whoever_reads_other_files(client: Client, tiles: Path) -> None:
    """They begin as a temporary file, which nobody else may."""
    run(client, "tiles")
    assert Path("results.csv").stat().st_mode == Path("tile.png").stat().st_mode


def test_a_link_to_a_file_of_results_stays_one(client: Client, tiles: Path) -> None:
    """What it leads to is written, as on the large disk where there is room for it."""
    Path("large disk").mkdir()
    Path("results.csv").symlink_to("large disk/results.csv")
    run(client, "tiles")
    assert Path("results.csv").is_symlink()
    assert len(table("large disk/results.csv")) == 3
    assert [path.name for path in Path("large disk").iterdir()] == ["results.csv"]


@pytest.mark.parametrize(
    ("outs", "text"),
    [
        (("results.xlsx",), "Expected a file ending in"),
        (("results.geojson",), "--coordinates"),
        (("nowhere/results.csv",), "Expected a folder"),
        (("results.csv", "folder.csv"), "Received the folder"),
        (("results.csv", "locked/results.csv"), "Expected a folder that can be written to. Received: locked"),
    ],
)
def test_a_run_that_cannot_end_well_does_not_begin(
    outs: tuple[str, ...],
    text: str,
    server: ApiServer,
    client: Client,
    tiles: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is submitted for a file that could not be written."""
    Path("folder.csv").mkdir()
    Path("locked").mkdir()
    # Whoever runs the tests may be allowed to write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked")
    with pytest.raises(ValueError, match=text):
        run(client, "tiles", outs=outs)
    assert server.jobs == []


def test_heat_maps_are_not_kept_among_the_tiles(server: ApiServer, client: Client, tiles: Path) -> None:
    """The next call would take them for tiles."""
    for folder in (tiles, tiles / "maps", Path("elsewhere/../tiles/maps")):
        with pytest.raises(ValueError, match="heat maps outside of tiles"):
            run(client, "tile.png", "tiles", options={"explain": True}, heatmaps=folder)
    assert server.jobs == []
