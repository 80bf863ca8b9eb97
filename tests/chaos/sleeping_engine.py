"""The engine without a model, which may be told where to die, and which writes down what it dies of.

python -m tests.chaos.sleeping_engine --milliseconds N FILE_DESCRIPTOR PARENT_PID
"""

import hashlib
import os
from pathlib import Path

from shared.crash_points import crash_point
from tests import fake_engine
from tests.chaos.crashing import arm_from_environment

#: The environment variable that names a file: one line for each death by an image that was alone, its digest.
SOLO_CRASHES = "SOLO_CRASHES"

_DEADLY = (fake_engine.CRASH, fake_engine.HANG, fake_engine.SHORT)


def _note(images: list[bytes]) -> None:
    crash_point("engine.mid_batch")
    path = os.environ.get(SOLO_CRASHES)
    if path and len(images) == 1 and any(marker in images[0] for marker in _DEADLY):
        with Path(path).open("a") as file:
            file.write(f"{hashlib.sha256(images[0]).hexdigest()}\n")


if __name__ == "__main__":
    arm_from_environment()
    fake_engine.main(before=_note)
