import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.processes import Watch, busy_seconds, name_of, read_usage, tree

TICK = 1 / os.sysconf("SC_CLK_TCK")


def write_process(
    proc: Path, pid: int, parent: int, name: str = "python", user: int = 0, system: int = 0, pages: int = 0
) -> None:
    """Write a process as the kernel shows it: fields 14 and 15 are its ticks, 24 its resident pages."""
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    fields = ["S", parent, 1, 1, 0, -1, 0, 0, 0, 0, 0, user, system, 9999, 9999, 20, 0, 1, 0, 5, 1, pages]
    (folder / "stat").write_text(f"{pid} ({name}) " + " ".join(map(str, fields)) + " 0 0 0\n")


def test_cpu_time_is_user_and_system_time_of_the_process_alone(tmp_path: Path) -> None:
    """Not that of its children, which are counted for themselves."""
    write_process(tmp_path, 7, 1, user=150, system=50, pages=10)
    usage = read_usage(7, tmp_path)
    assert usage is not None
    assert usage.cpu_seconds == pytest.approx(200 * TICK)
    assert usage.rss_bytes == 10 * os.sysconf("SC_PAGE_SIZE")


def test_a_name_with_brackets_and_spaces_moves_no_field(tmp_path: Path) -> None:
    """A process names itself as it likes."""
    write_process(tmp_path, 7, 3, name="a) b (c", user=100)
    usage = read_usage(7, tmp_path)
    assert usage is not None
    assert (usage.parent, usage.cpu_seconds) == (3, pytest.approx(100 * TICK))


def test_a_process_that_is_gone_has_no_usage(tmp_path: Path) -> None:
    """It ended between two looks."""
    assert read_usage(7, tmp_path) is None
    assert name_of(7, tmp_path) == "gone"


def test_a_tree_holds_grandchildren_and_no_strangers(tmp_path: Path) -> None:
    """Whatever the order in which the kernel lists them."""
    for pid, parent in ((30, 20), (20, 10), (10, 1), (40, 1), (50, 40)):
        write_process(tmp_path, pid, parent)
    assert {usage.pid for usage in tree(10, tmp_path)} == {10, 20, 30}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/x/python\0-m\0worker.engine\x005\x006", "engine"),
        ("/x/python\0-m\0worker", "worker"),
        ("/x/python\0-m\0gunicorn\0--config\0y", "api"),
        ("/x/rclone\0serve\0s3", "object store"),
        ("/x/bin/ray::Tiles", "ray"),
        ("/usr/bin/other\0thing", "other"),
    ],
)
def test_a_process_is_named_by_what_it_runs(tmp_path: Path, command: str, name: str) -> None:
    """Most of ours are Python, so the program's name would tell nothing."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes(command.encode())
    assert name_of(7, tmp_path) == name


def test_waiting_for_a_disk_is_not_work(tmp_path: Path) -> None:
    """Busy is everything but idle and iowait; the two columns for guests are in `user` already."""
    (tmp_path / "stat").write_text("cpu  100 10 50 7000 800 1 2 3 40 50\ncpu0 1 1 1 1\n")
    assert busy_seconds(tmp_path) == pytest.approx(166 * TICK)


def test_a_watch_books_what_a_child_works_and_not_what_it_worked_before() -> None:
    """On real processes: one that burns a known amount of CPU time while it is watched."""
    burn = "import time, sys\nwhile time.process_time() < {}: pass\n"
    script = burn.format(0.5) + "print('half', flush=True); sys.stdin.readline()\n" + burn.format(0.8)
    script += "print('done', flush=True); sys.stdin.readline()"
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "half\n"
        with Watch(lambda: [child.pid], time.monotonic) as watch:
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "done\n"
        cost = watch.cost()
    finally:
        child.kill()
        child.communicate()
    (used,) = cost.cpu_seconds.values()
    assert used == pytest.approx(0.3, abs=0.06)
    assert cost.peak_rss_bytes > 1_000_000
