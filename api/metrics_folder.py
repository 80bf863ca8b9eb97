"""The folder in which the processes of one API server count together.

In memory, where the system keeps a place for that: its files are mapped, and on a full disk whoever counts in
one is ended by the kernel (SIGBUS), again and again.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own
_PREFIX = "histoqueue-metrics-"


class MetricsFolder:
    """Made by the main process before it forks; prometheus_client finds it by the environment."""

    def __init__(self, memory: Path = _MEMORY) -> None:
        self._parent = memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
        self._made: Path | None = None

    def begin(self) -> None:
        """Make it, or empty the one that the environment names: what it holds is an earlier server's."""
        given = os.environ.get(_VARIABLE)
        if given:
            Path(given).mkdir(parents=True, exist_ok=True)
            for old in Path(given).glob("*.db"):
                old.unlink()
            return
        for left in self._parent.glob(f"{_PREFIX}*"):
            _remove_if_left(left)
        self._made = self._new_folder()
        os.environ[_VARIABLE] = str(self._made)

    def _new_folder(self) -> Path:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
            # Held by every process that is forked from this one, until the last of them has ended.
            fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
            if folder.is_dir():  # and was not taken for a left one in between
                return folder

    def forget(self, pid: int) -> None:
        """Take an ended process out of the present figures."""
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - reads the variable

        mark_process_dead(pid)  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """Remove what was made here."""
        if self._made:
            shutil.rmtree(self._made, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Remove the folder of a server that was killed: nobody holds its lock."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return  # somebody else's, or gone in this moment
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)
