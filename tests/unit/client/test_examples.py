"""What the client's documentation shows is what happens."""

import doctest
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import histoqueue
import pytest

from tests.api_server import ApiServer
from tests.factories import png_bytes

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted(
    module.name for module in pkgutil.iter_modules(histoqueue.__path__) if module.name != "__main__"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str, server: ApiServer, tiles: Path) -> None:
    """Against a real server, beside real files."""
    module = importlib.import_module(f"histoqueue.{name}")
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


def test_there_are_examples_to_run() -> None:
    """The test above does not pass for want of them."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        example
        for name in MODULES
        for test in finder.find(importlib.import_module(f"histoqueue.{name}"))
        for example in test.examples
    ]
    assert len(found) >= 14


@pytest.mark.parametrize("page", ["client/README.md", "docs/how-to/batch.md"])
def test_python_blocks_of_the_pages_run(
    page: str, server: ApiServer, tiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each as it stands, beside a tile and a folder of tiles."""
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})
    assert "lung_aca" in capsys.readouterr().out


def test_the_loop_of_the_page_goes_on_after_a_tile_that_fails(
    server: ApiServer, bad_tiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that failed is told as its error, and no traceback."""
    (bad_tiles / "broken.png").replace(bad_tiles / "x0_y0.png")
    page = (ROOT / "docs/how-to/batch.md").read_text()
    (block,) = [block for block in re.findall(r"```python\n(.+?)```", page, re.DOTALL) if ".map(" in block]
    exec(compile(block, "batch.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert "tiles/x0_y0.png INVALID_IMAGE: Expected a JPEG. It breaks off." in lines
    assert "tile.png lung_aca" in lines


def test_shell_blocks_of_the_page_run(server: ApiServer, tiles: Path, tmp_path: Path) -> None:
    """One after the other, beside a folder of tiles, also with names that trip a shell; and once more."""
    (tiles / "a \"name\" with $HOME; and 'quotes'.png").write_bytes(png_bytes(seed=77))
    command = tmp_path / "bin" / "histoqueue"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT}/client exec {sys.executable} -m histoqueue "$@"\n')
    command.chmod(0o755)
    blocks = re.findall(r"```sh\n(.+?)```", (ROOT / "docs/how-to/batch.md").read_text(), re.DOTALL)
    assert len(blocks) == 6
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        assert lines[-2:] == [["4"], ["4", '"class":"lung_aca"']]
        assert len(server.jobs) == 4 + 3 + 4 + 4 + 4, "the second time nothing is left to do"
    assert len(list((tiles.parent / "results" / "tiles").glob("*.json"))) == 4
    placed = json.loads(Path("placed.geojson").read_text())
    assert (len(placed["features"]), len(placed["unplaced"])) == (2, 2)
