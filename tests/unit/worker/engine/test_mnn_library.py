"""MNN's libraries are never loaded while they ask for an executable stack."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from worker.engine.mnn_library import LIBRARIES, asks_for_executable_stack, clear, installed

READ_WRITE, READ_WRITE_EXECUTE = 6, 7
PT_LOAD, PT_GNU_STACK = 1, 0x6474E551


def library(path: Path, *segments: tuple[int, int]) -> Path:
    """Write a file with the headers of an ELF-64 and these segments, by kind and flags."""
    identification = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = identification + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, 0, 0
    )
    table = b"".join(struct.pack("<IIQQQQQQ", kind, flags, 0, 0, 0, 0, 0, 16) for kind, flags in segments)
    path.write_bytes(head + table + b"the rest")
    return path


def test_the_flag_alone_is_cleared(tmp_path: Path) -> None:
    """Segments that hold code stay executable, and every other byte stays as it is."""
    path = library(tmp_path / "a.so", (PT_LOAD, 5), (PT_GNU_STACK, READ_WRITE_EXECUTE), (PT_LOAD, 7))
    meant = library(tmp_path / "b.so", (PT_LOAD, 5), (PT_GNU_STACK, READ_WRITE), (PT_LOAD, 7)).read_bytes()
    assert asks_for_executable_stack(path)
    assert clear(path)
    assert path.read_bytes() == meant
    assert not asks_for_executable_stack(path)
    assert not clear(path)


def test_a_library_that_says_nothing_of_the_stack_would_make_it_executable(tmp_path: Path) -> None:
    """So does glibc take it; one that is cut short is not loaded either, whatever it says."""
    silent = library(tmp_path / "a.so", (PT_LOAD, 5))
    assert asks_for_executable_stack(silent)
    assert not clear(silent)
    whole = library(tmp_path / "b.so", (PT_LOAD, 5), (PT_GNU_STACK, READ_WRITE)).read_bytes()
    for length in (6, 63, 64, 64 + 56 + 4):
        (tmp_path / "c.so").write_bytes(whole[:length])
        assert asks_for_executable_stack(tmp_path / "c.so"), length


@pytest.mark.parametrize("body", [b"", b"\x7fELF", b"\xcf\xfa\xed\xfe" + bytes(100), b"MZ" + bytes(100)])
def test_what_is_no_such_library_is_left_alone(tmp_path: Path, body: bytes) -> None:
    """As those of macOS and Windows."""
    path = tmp_path / "a.so"
    path.write_bytes(body)
    assert not asks_for_executable_stack(path)
    assert not clear(path)
    assert path.read_bytes() == body


def test_the_installation_has_cleared_it() -> None:
    """By the Makefile, here; by the Dockerfile, in an image."""
    pytest.importorskip("numpy")
    assert {path.name.partition(".")[0] for path in installed()} == set(LIBRARIES)
    assert not any(asks_for_executable_stack(path) for path in installed())


def test_the_file_runs_by_itself_and_names_what_it_changed(tmp_path: Path) -> None:
    """With nothing of ours beside it, as in an image that is being built."""
    program = Path(asks_for_executable_stack.__code__.co_filename).read_text()
    (tmp_path / "mnn_library.py").write_text(program)
    path = library(tmp_path / "_mnncengine.so", (PT_GNU_STACK, READ_WRITE_EXECUTE))
    command = [sys.executable, "-S", "mnn_library.py"]
    environment = {**os.environ, "PYTHONPATH": ""}
    said = [
        subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        for _ in range(2)
    ]
    assert said == ["_mnncengine.so no longer asks for an executable stack\n", ""]
    assert not asks_for_executable_stack(path)
