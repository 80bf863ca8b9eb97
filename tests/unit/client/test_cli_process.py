"""The command as a process: its pipes, its terminal, its encoding, its signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.processes import wait_until
from tests.api_server import ApiServer
from tests.factories import png_bytes

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("command", ["predict tile.png", "predict --json tile.png", "models"])
def test_a_reader_that_has_enough_ends_it_quietly(command: str, server: ApiServer, tiles: Path) -> None:
    """As in `histoqueue predict ... | head -1`, however much of it was written when the reader left."""
    line = f"set -o pipefail; {sys.executable} -m histoqueue {command} | true"
    done = subprocess.run(
        ["bash", "-c", line],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert done.stderr == ""


def test_an_answer_that_cannot_be_written_is_told(server: ApiServer, tiles: Path) -> None:
    """In one line, and by the status: a full disk is no success."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m histoqueue models > /dev/full"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (2, "error: [Errno 28] No space left on device\n")


def test_a_list_that_is_closed_is_empty(server: ApiServer, tiles: Path) -> None:
    """Nothing can be on it."""
    command = f"{sys.executable} -m histoqueue submit - --out r.csv <&-"
    done = subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, text=True, timeout=60, env=environment()
    )
    assert (done.returncode, done.stderr.strip()) == (0, "0 of 0 files, 0.0/s")


@pytest.mark.parametrize("where", ["2>&1 | true", "2>&-"])
def test_a_run_does_not_depend_on_who_watches_it(where: str, server: ApiServer, tiles: Path) -> None:
    """Progress that nobody can read any more ends nothing; the status is that of the files."""
    (tiles / "page.png").write_text("<!doctype html>")
    command = f"sleep 0.5; {sys.executable} -m histoqueue submit tiles --out r.csv"
    line = f"({command}; echo $? > status) {where}"
    subprocess.run(["bash", "-c", line], check=True, timeout=60, env=environment())
    assert Path("status").read_text() == "1\n"
    assert len(Path("r.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_any_name_can_be_shown(encoding: str, more: list[str], server: ApiServer, tiles: Path) -> None:
    """In one line, whatever it holds and whatever the terminal can show; it moves no cursor."""
    names = ["a\nb\x1b[31m.png", os.fsdecode(b"\xe4.png"), "\u80ba.png"]
    for name in names:
        Path(name).write_bytes(png_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "histoqueue", "predict", *more, *names],
        check=False,
        capture_output=True,
        timeout=60,
        env={**environment(), "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert not set(done.stdout) & set(b"\x1b\r\x07")
    if more:
        assert [json.loads(line)["file"] for line in lines] == [names[0], "\\xe4.png", names[2]]
    else:
        assert [line.split()[0] for line in lines[1:4]] == [
            "a\\nb\\x1b[31m.png",
            "\\xe4.png",
            names[2] if encoding.startswith("utf") else "\\u80ba.png",
        ]


def test_a_list_may_hold_names_that_are_no_text(server: ApiServer, tiles: Path) -> None:
    """As a folder may."""
    Path(os.fsdecode(b"\xe4.png")).write_bytes(png_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "histoqueue", "submit", "-", "--out", "r.ndjson"],
        check=False,
        input=b"\xe4.png\n",
        capture_output=True,
        timeout=60,
        env={**environment(), "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("r.ndjson").read_text())["status"] == "succeeded"


def test_ctrl_c_is_status_130(server: ApiServer, tiles: Path) -> None:
    """With a word on what is kept, and no traceback, however many requests are held back."""
    server.is_working.clear()
    command = [sys.executable, "-m", "histoqueue", "submit", "tiles", "--out", "r.csv"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert wait_until(lambda: len(server.jobs) == 3, 30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said


def environment() -> dict[str, str]:
    """Return an environment in which the command is found, and holds its output back as it does elsewhere."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "client"), "PYTHONUNBUFFERED": ""}
