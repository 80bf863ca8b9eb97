"""The client installs by itself, as a distribution of its own."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from histoqueue import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pip install ./client` into a folder, without a network."""
    folder = tmp_path_factory.mktemp("client")
    # A copy: a build leaves its traces beside the sources.
    source = shutil.copytree(
        ROOT / "client",
        folder / "source",
        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
    )
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *offline,
        "--target",
        str(folder / "site"),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_the_command_runs_where_it_was_installed(installed: Path, tmp_path: Path) -> None:
    """It tells its version, and its code is the installed one."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    said = subprocess.run(
        [installed / "bin" / "histoqueue", "--version"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert said == f"histoqueue {__version__}\n"
    program = "import histoqueue; print(histoqueue.__file__)"
    said = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert Path(said.strip()).is_relative_to(installed)


def test_everything_is_in_the_distribution(installed: Path) -> None:
    """Each module, and the word that it is typed."""
    source = {path.name for path in (ROOT / "client" / "histoqueue").iterdir() if path.is_file()}
    assert source == {path.name for path in (installed / "histoqueue").iterdir() if path.is_file()}
    assert "py.typed" in source


def test_it_needs_one_library(installed: Path) -> None:
    """Nothing of the server's, and nothing that it does not name."""
    metadata = next(installed.glob("histoqueue-*.dist-info")) / "METADATA"
    lines = metadata.read_text().splitlines()
    assert [line for line in lines if line.startswith("Requires-Dist")] == ["Requires-Dist: httpx2<3,>=2.0"]
    assert "Requires-Python: >=3.9" in lines
    imported = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").partition(".")[0]
        for path in (ROOT / "client" / "histoqueue").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level)
        for alias in node.names
    }
    # typing_extensions is read by type checkers alone.
    assert imported - set(sys.stdlib_module_names) == {"httpx2", "typing_extensions"}
