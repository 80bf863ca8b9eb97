"""A real worker: `python -m tests.chaos.worker real|fake MILLISECONDS_A_TILE`; a fake engine has no model."""

import sys

from shared.logs import configure_logs
from shared.object_store import WORKER_PATIENCE
from shared.services import from_settings
from shared.settings import Settings
from tests.chaos.crashing import arm_from_environment
from worker.app import run
from worker.lifecycle import Worker

if __name__ == "__main__":
    arm_from_environment()
    settings = Settings()
    configure_logs(settings.log_level, settings.log_json)
    commands = {
        "real": (sys.executable, "-m", "tests.chaos.engine"),
        "fake": (sys.executable, "-m", "tests.chaos.sleeping_engine", "--milliseconds", sys.argv[2]),
    }
    services = from_settings(settings, WORKER_PATIENCE)
    run(settings, Worker(settings, services, engine_command=commands[sys.argv[1]]))
