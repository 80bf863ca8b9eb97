"""What a crash point does in a test: the process that passes it is killed, once.

`CRASH_AT` names a file; the point whose name is written there is armed. Whoever passes it takes the file
away and dies, so that the process which takes its place goes on, and one running system serves every point.
"""

import os
import signal
from pathlib import Path

from shared.crash_points import arm

#: The environment variable.
CRASH_AT = "CRASH_AT"


def arm_from_environment() -> None:
    """Arm this process, if `CRASH_AT` is set."""
    if path := os.environ.get(CRASH_AT):
        arm(lambda name: _die_if_named(name, Path(path)))


def _die_if_named(name: str, path: Path) -> None:
    try:
        if path.read_text() != name:
            return
        # Of several that pass at the same time, one finds the file.
        path.rename(path.with_name(f"{path.name}-{name}"))
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
