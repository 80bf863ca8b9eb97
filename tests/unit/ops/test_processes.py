"""A child's log stays bounded while the child writes on."""

import sys
from pathlib import Path

import pytest

from ops import processes
from ops.processes import Child, wait_until

CHATTER = """
import itertools, time
for number in itertools.count():
    print("line", number, flush=True)
    time.sleep(0.001)
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
