"""Where the API's processes count together: in memory, and gone with the server, however that ended."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from api import gunicorn_conf
from api.metrics_folder import MetricsFolder
from tests.stack import ROOT

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SERVER = f"""
import os, sys, time
from pathlib import Path
from api.metrics_folder import MetricsFolder
MetricsFolder(Path(sys.argv[1])).begin()
print(os.environ["{VARIABLE}"], flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that what a test sets is taken back


@contextmanager
def server(memory: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run another server's main process; yield it and its folder."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-c", SERVER, str(memory)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_it_lies_in_memory_and_goes_with_the_server(tmp_path: Path) -> None:
    """A mapped file on a full disk ends whoever writes to it."""
    folder = MetricsFolder(tmp_path)
    folder.begin()
    made = Path(os.environ[VARIABLE])
    assert made.parent == tmp_path
    assert made.is_dir()
    folder.end()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system keeps no folder in memory")
def test_the_systems_own_memory_is_used() -> None:
    """Where nothing else is said."""
    folder = MetricsFolder()
    folder.begin()
    try:
        assert Path(os.environ[VARIABLE]).parent == Path("/dev/shm")
    finally:
        folder.end()


def test_without_such_a_place_it_is_a_temporary_folder(tmp_path: Path) -> None:
    """As on a Mac."""
    folder = MetricsFolder(tmp_path / "nowhere")
    folder.begin()
    try:
        assert Path(os.environ[VARIABLE]).parent == Path(tempfile.gettempdir())
    finally:
        folder.end()


def test_that_of_a_killed_server_is_removed_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    """What lies there is memory: nobody may leave it for good."""
    with server(tmp_path) as (_, running), server(tmp_path) as (killed, left):
        killed.kill()
        killed.wait()
        assert left.is_dir()
        folder = MetricsFolder(tmp_path)
        folder.begin()
        assert sorted(tmp_path.iterdir()) == sorted([running, Path(os.environ[VARIABLE])])


def test_a_server_that_refuses_to_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started again and again by whatever looks after it."""
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(gunicorn_conf, "_METRICS", MetricsFolder(tmp_path / "memory"))
    (tmp_path / "objects" / "histoqueue").mkdir(parents=True)
    monkeypatch.setenv("OBJECT_STORE_DIR", str(tmp_path / "objects"))
    with pytest.raises(SystemExit, match="without an API key"):
        gunicorn_conf.on_starting(SimpleNamespace(cfg=SimpleNamespace(address=[("0.0.0.0", 5000)])))
    assert not list((tmp_path / "memory").iterdir())
