"""Which files a source names."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from histoqueue import Client
from histoqueue._scan import scan

from tests.factories import png_bytes
from tests.unit.client.conftest import run, table


@pytest.mark.parametrize("how", ["folder", "list", "link"])
def test_a_file_that_is_gone_keeps_its_row(
    how: str, client: Client, bad_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was answered, and may be gone by mistake: a folder that is not mounted looks like an empty one."""
    shelf = bad_tiles.parent / "shelf"
    shelf.mkdir()
    for path in [bad_tiles / "x0_y0.png", bad_tiles / "page.png"]:
        path.rename(shelf / path.name)
        path.symlink_to(shelf / path.name)
    listed = [f"tiles/{path.name}\n" for path in bad_tiles.iterdir()]

    def call() -> dict[str, dict[str, str]]:
        monkeypatch.setattr(sys, "stdin", listed)
        run(client, "-" if how == "list" else "tiles")
        return table()

    before = call()
    for path in shelf.iterdir():
        path.unlink()
        if how != "link":
            (bad_tiles / path.name).unlink()
    assert call() == before


def test_a_source_that_is_not_there_begins_nothing(client: Client, tiles: Path) -> None:
    """And ends nothing: a journal that is there stays, whatever was to be done with it."""
    with pytest.raises(ValueError, match="nowhere"):
        run(client, "tiles", "nowhere", options={"mpp": 0.5})
    assert not Path("results.csv.journal").exists()
    run(client, "tiles")
    with pytest.raises(ValueError, match=r"\*\.gif"):
        run(client, "tiles", "tiles/*.gif", restart=True)
    assert run(client, "tiles").done_now == 0


def test_a_name_that_is_no_text_is_a_file_like_any_other(client: Client, tiles: Path) -> None:
    """Its bytes are shown as escapes."""
    Path(os.fsdecode(os.fsencode(str(tiles)) + b"/\xe4.png")).write_bytes(png_bytes())
    assert run(client, "tiles", outs=("results.csv", "results.ndjson")).succeeded == 4
    assert "tiles/\\xe4.png" in table()


def test_files_come_from_folders_patterns_and_lists(bad_tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden files and other suffixes are left out of a folder, and nothing that is named is."""
    (bad_tiles / ".hidden.png").touch()
    (bad_tiles / "notes.txt").touch()
    (bad_tiles / "deep" / "er").mkdir(parents=True)
    (bad_tiles / "deep" / "er" / "A.JPEG").touch()
    (bad_tiles / "loop").symlink_to(bad_tiles)
    assert len(list(scan(["tiles"]))) == 7
    (bad_tiles / "loop").unlink()
    assert [found.path for found in scan(["tiles/x0*.png", "tiles/**/*.JPEG"])] == [
        "tiles/x0_y0.png", "tiles/deep/er/A.JPEG",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", ["tiles/notes.txt\n", "\n", "nowhere.png"])
    assert [found.path for found in scan(["-"])] == ["tiles/notes.txt", "nowhere.png"]
    with pytest.raises(ValueError, match="Received: 'nowhere'"):
        list(scan(["nowhere"]))
    with pytest.raises(ValueError, match=r"Received: 'tiles/\*.gif'"):
        list(scan(["tiles/*.gif"]))


def test_a_folder_that_cannot_be_read_is_a_row(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in it is not known, which must not go unnoticed."""
    (tiles / "locked").mkdir()
    look = os.scandir

    def refuse(folder: str) -> Any:
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return look(folder)

    # Whoever runs the tests may be allowed to read everything.
    monkeypatch.setattr(os, "scandir", refuse)
    assert "tiles/locked" in [found.path for found in scan(["tiles"])]


def test_a_folder_that_can_be_read_again_has_no_row(
    client: Client, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files have; so that what failed can be done again without doing all of it."""
    (tiles / "locked").mkdir()
    (tiles / "locked" / "a.png").write_bytes(png_bytes())
    (tiles / "gone.png").symlink_to(tiles / "nowhere.png")
    look = os.scandir

    def refuse(folder: str) -> Any:
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return look(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert run(client, "tiles").failures == {"UNREADABLE_FILE": 2}
    again = run(client, "tiles", retry_failed=True)
    assert (again.succeeded, again.failed, again.done_now) == (4, 1, 2)
    assert {"tiles/locked", "tiles/locked/a.png", "tiles/gone.png"} & set(table()) == {
        "tiles/locked/a.png",
        "tiles/gone.png",
    }


def test_a_pipe_is_not_read(client: Client, tiles: Path) -> None:
    """It would hold the run up for ever."""
    os.mkfifo(tiles / "pipe.png")
    assert run(client, "tiles").failures == {"UNREADABLE_FILE": 1}


def test_a_folder_without_a_tile_is_said_to_have_none(
    client: Client, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of other files, or not mounted; an empty list is nothing to do."""
    Path("slides").mkdir()
    Path("slides/slide.svs").touch()
    with pytest.raises(ValueError, match=r"Expected files ending in \.jpg.* in slides\. Received none"):
        run(client, "slides")
    assert not Path("results.csv").exists()
    monkeypatch.setattr(sys, "stdin", [])
    assert run(client, "-").total == 0
    run(client, "tiles")
    assert run(client, "slides").total == 3
