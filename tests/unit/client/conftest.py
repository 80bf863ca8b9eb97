"""Tiles in a folder, and a server to submit them to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from histoqueue import Client

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
