"""What the client's documentation shows is what happens."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import histoqueue
import pytest

from tests.api_server import ApiServer

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
