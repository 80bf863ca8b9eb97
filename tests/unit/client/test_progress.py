"""What is shown of a run while it goes on."""

import fcntl
import io
import os
import struct
import termios

from histoqueue._bulk import Summary
from histoqueue._progress import ProgressLine, describe


def test_progress_is_drawn_again_for_who_watches() -> None:
    """In place, and so that a shorter line leaves nothing of a longer one."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    line = ProgressLine(stream)
    line.show(Summary(2000, 100, {}, 100, 2.0))
    line.show(Summary(2000, 2000, {}, 2000, 40.0), is_last=True)
    first, last = stream.getvalue().split("\r")[1:]
    assert first == "100 of 2000 files, 50.0/s, 0:00:38 left"
    assert last.rstrip(" \n") == "2000 of 2000 files, 50.0/s"
    assert len(last.rstrip("\n")) >= len(first)


def test_progress_keeps_to_one_line_of_a_narrow_terminal() -> None:
    """A longer one could not be drawn again: each would push the last up. At the end all of it is said."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with open(leader, "rb", buffering=0) as reader, open(follower, "w") as stream:  # noqa: PTH123 - no paths
        line = ProgressLine(stream)
        summary = Summary(2000, 100, {"INVALID_IMAGE": 2, "UNREADABLE_FILE": 3}, 100, 2.0)
        line.show(summary)
        assert reader.read(1000).decode() == "\r105 of 2000 files, 50.0/s, 0:00:37 left"
        line.show(summary, is_last=True)
        assert reader.read(1000).decode().strip() == describe(summary)


def test_progress_is_rare_in_a_log() -> None:
    """Where nobody watches, a line in ten seconds, and the last one."""
    stream = io.StringIO()
    line = ProgressLine(stream)
    for number in range(50):
        line.show(Summary(100, number, {}, number, 1.0))
    line.show(Summary(100, 50, {"POISON": 50}, 100, 1.0), is_last=True)
    assert stream.getvalue() == "100 of 100 files, 100.0/s, 50 failed (POISON 50)\n"
