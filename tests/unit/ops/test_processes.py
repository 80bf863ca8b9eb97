"""A child's log stays bounded while the child writes on, and its end comes in time."""

import signal
import sys
from pathlib import Path

import psutil
import pytest

from ops import processes
from ops.processes import Child, wait_until

CHATTER = """
import itertools, time
for number in itertools.count():
    print("line", number, flush=True)
    time.sleep(0.001)
"""

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
time.sleep(60)
"""


def test_a_long_log_goes_on_from_nothing_and_its_part_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a hole at its start, which a program that does not append would leave."""
    monkeypatch.setattr(processes, "MOST_LOG_BYTES", 2_000)
    log = tmp_path / "chatter.log"
    child = Child("chatter", [sys.executable, "-c", CHATTER], log)
    child.bound_log()  # before there is any
    child.start()
    try:
        for _ in range(3):
            assert wait_until(lambda: log.stat().st_size > 2_000, 20)
            child.bound_log()
            assert log.stat().st_size < 2_000
        assert wait_until(lambda: log.stat().st_size > 100, 20)
    finally:
        child.stop(5)
    assert b"\0" not in log.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chatter.log", "chatter.log.1"]
    assert (tmp_path / "chatter.log.1").read_text().splitlines()[-2].startswith("line ")


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    """Most are short."""
    log = tmp_path / "short.log"
    log.write_text("a line\n")
    Child("short", ["true"], log).bound_log()
    assert log.read_text() == "a line\n"
    assert list(tmp_path.iterdir()) == [log]


def test_one_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    """As an API whose own processes hang: nothing of it is left to hold a port or a lock."""
    child = Child("stubborn", [sys.executable, "-c", STUBBORN], tmp_path / "log")
    child.start()
    assert wait_until(lambda: child.log.read_text().endswith("\n"), 20)
    its_own = psutil.Process(int(child.log.read_text()))
    child.stop(0.2)
    assert child.exit_code == -signal.SIGKILL
    assert wait_until(lambda: not _is_alive(its_own), 5)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
