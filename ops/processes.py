"""One child process: started with its log, ended by its id, gone when its parent is gone."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
#: A log that is longer goes on from nothing, and one such part before it is kept.
MOST_LOG_BYTES = 32_000_000
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(signal_number: int) -> Callable[[], None] | None:
    """Return what a new process runs first, so that the kernel signals it when the thread that made it ends.

    None where the system knows no such thing (it is Linux' own).
    """
    if _LIBC is None:
        return None
    prctl, parent = _LIBC.prctl, os.getpid()

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)

    return ask_the_kernel


class Child:
    """A program of ours in a session of its own, so that a terminal's Ctrl-C reaches only its parent."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        stdin: str | None = None,
        on_parent_death: int = signal.SIGKILL,
    ) -> None:
        """`stdin` is given to the program at each start: what must not stand in its command line."""
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment) if environment is not None else None
        self._stdin = stdin
        self._on_parent_death = on_parent_death
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running program."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs. Negative: the signal that killed it."""
        return self._process.poll() if self._process else None

    @property
    def is_running(self) -> bool:
        """It was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, held: Sequence[int] = ()) -> None:
        """Start the program; its output is added to the log, and it holds these descriptors open."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE if self._stdin is not None else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=held,
                # The only thread of this process makes its children, so the fork is safe.
                preexec_fn=die_with_parent(self._on_parent_death),  # noqa: PLW1509
            )
        if self._stdin is not None and self._process.stdin is not None:
            self._process.stdin.write(self._stdin.encode())
            self._process.stdin.close()

    def bound_log(self) -> None:
        """Keep its log from filling the disk; a line that comes in this moment may be lost."""
        if self.log.exists() and self.log.stat().st_size > MOST_LOG_BYTES:
            shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
            # It is open to be appended to, so the program writes on at the new end.
            os.truncate(self.log, 0)

    def send(self, signal_number: int) -> None:
        """Send a signal, if it runs."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal_number)

    def stop(self, timeout_seconds: float) -> None:
        """Ask the program to end, and kill it when it has not by then."""
        self.send(signal.SIGTERM)
        self.reap(timeout_seconds)

    def reap(self, timeout_seconds: float) -> None:
        """Wait until it has ended, and kill it when it has not by then."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0, timeout_seconds))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, with whatever it started in its own session."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def wait_until(check: Callable[[], bool], timeout_seconds: float, every_seconds: float = 0.05) -> bool:
    """Call `check` until it is true; return whether that came in time."""
    end = time.monotonic() + timeout_seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(every_seconds)
    return True
