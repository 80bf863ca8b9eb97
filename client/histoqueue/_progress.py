"""How far a run is, on standard error: one line that is drawn again, or one line now and then in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TextIO

from ._bulk import Summary

#: Between two lines where nobody watches.
_LOG_SECONDS = 10.0
#: Of a terminal that does not tell its width.
_COLUMNS = 80


class ProgressLine:
    """Shows files, rate, time left and failures by reason."""

    def __init__(self, stream: TextIO | None = None) -> None:
        #: None where standard error is closed.
        self._stream: TextIO | None = stream or sys.stderr
        self._is_drawn = self._stream is not None and self._stream.isatty()
        self._shown_at = time.monotonic()
        self._width = 0

    def show(self, summary: Summary, is_last: bool = False) -> None:
        """Show it, if it is time to."""
        text = describe(summary)
        if self._stream is not None and self._is_drawn:
            if not is_last:
                # What goes on in the next line cannot be drawn again.
                text = text[: _columns(self._stream) - 1]
            end = "\n" if is_last else ""
            self._write(f"\r{text:<{self._width}}{end}")
            self._width = len(text)
        elif is_last or time.monotonic() - self._shown_at >= _LOG_SECONDS:
            self._shown_at = time.monotonic()
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        # Who does not read it any more, as `| head` does, ends no run.
        with contextlib.suppress(OSError):
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


def describe(summary: Summary) -> str:
    """Return a run in one line.

    >>> describe(Summary(2000, 500, {"INVALID_IMAGE": 2}, done_now=400, seconds=8.0))
    '502 of 2000 files, 50.0/s, 0:00:29 left, 2 failed (INVALID_IMAGE 2)'
    """
    rate = summary.done_now / summary.seconds if summary.seconds else 0.0
    parts = [f"{summary.total - summary.pending} of {summary.total} files", f"{rate:.1f}/s"]
    if summary.pending and rate:
        seconds = int(summary.pending / rate)
        parts.append(f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left")
    if summary.failures:
        reasons = ", ".join(f"{code} {number}" for code, number in summary.failures.items())
        parts.append(f"{summary.failed} failed ({reasons})")
    return ", ".join(parts)
