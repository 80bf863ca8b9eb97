"""The folder in which the processes of one API server count together."""

import os
import shutil
import tempfile
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class MetricsFolder:
    """Made by the main process before it forks; prometheus_client finds it by the environment."""

    def __init__(self) -> None:
        self._made: str | None = None

    def begin(self) -> None:
        """Make it, or empty the one that the environment names: what it holds is an earlier server's."""
        given = os.environ.get(_VARIABLE)
        if given:
            Path(given).mkdir(parents=True, exist_ok=True)
            for old in Path(given).glob("*.db"):
                old.unlink()
        else:
            os.environ[_VARIABLE] = self._made = tempfile.mkdtemp(prefix="histoqueue-metrics-")

    def forget(self, pid: int) -> None:
        """Take an ended process out of the present figures."""
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - reads the variable

        mark_process_dead(pid)  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """Remove what was made here."""
        if self._made:
            shutil.rmtree(self._made, ignore_errors=True)
