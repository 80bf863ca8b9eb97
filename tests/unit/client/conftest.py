"""Tiles in a folder, a server to submit them to, and a run that does."""

import csv
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog
from histoqueue import Client
from histoqueue._bulk import Bulk, Summary

from api import events
from tests.api_server import FAILING_WIDTH, ApiServer
from tests.factories import png_bytes


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """The real API with a clerk; the environment leads to it, and this process stands beside the tiles."""
    monkeypatch.setattr(events, "LINGER_SECONDS", 0.0)
    folder = tmp_path / "server"
    folder.mkdir()
    # Standard output is the command's alone.
    with structlog.testing.capture_logs(), ApiServer(folder, max_open_jobs=500) as running:
        monkeypatch.setenv("HISTOQUEUE_URL", running.url)
        yield running


@pytest.fixture
def client(server: ApiServer) -> Iterator[Client]:
    with Client(patience=5) as opened:
        yield opened


@pytest.fixture
def tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three good tiles, which names say where they lie; this process stands above it."""
    folder = tmp_path / "work" / "tiles"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"x{number * 64}_y{number * 48}.png").write_bytes(png_bytes(seed=number))
    (folder.parent / "tile.png").write_bytes(png_bytes(seed=9))
    monkeypatch.chdir(folder.parent)
    return folder


@pytest.fixture
def bad_tiles(tiles: Path) -> Path:
    """The same folder with one file that is no image, one whose job fails, and one that cannot be read."""
    (tiles / "page.png").write_text("<!doctype html>")
    (tiles / "broken.png").write_bytes(png_bytes(width=FAILING_WIDTH))
    (tiles / "gone.png").symlink_to(tiles / "nowhere.png")
    return tiles


@pytest.fixture
def many_tiles(tiles: Path) -> Path:
    """The folder with ten good tiles."""
    for number in range(3, 10):
        (tiles / f"x{number * 64}_y{number * 48}.png").write_bytes(png_bytes(seed=number))
    return tiles


@pytest.fixture(params=[2, 16], ids=["one by one", "together"])
def at_once(request: pytest.FixtureRequest) -> int:
    """So few tiles on their way that each goes by itself, and so many that each request has four."""
    return int(request.param)


def run(client: Client, *sources: str, outs: tuple[str, ...] = ("results.csv",), **how: Any) -> Summary:
    """Do a run, with two tiles at once unless `at_once` says how many."""
    options, at_once = how.pop("options", {}), how.pop("at_once", 2)
    return Bulk(client, sources, [Path(out) for out in outs], options, concurrency=at_once, **how).run()


def forget(*columns: str) -> None:
    """Take from the journal what a power cut may."""
    with closing(sqlite3.connect("results.csv.journal", isolation_level=None)) as journal:
        journal.execute(f"UPDATE items SET {', '.join(f'{column} = NULL' for column in columns)}")


def table(name: str = "results.csv") -> dict[str, dict[str, str]]:
    with Path(name).open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}
