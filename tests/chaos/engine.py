"""The real engine, which may be told where to die.

python -m tests.chaos.engine FILE_DESCRIPTOR PARENT_PID
"""

import sys

from tests.chaos.crashing import arm_from_environment
from worker.engine.__main__ import main

if __name__ == "__main__":
    arm_from_environment()
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
