"""A real worker over an engine without a model: `python -m tests.chaos.worker MILLISECONDS_A_TILE`."""

import sys
from pathlib import Path

from shared.logs import configure_logs
from shared.object_store import WORKER_PATIENCE
from shared.services import from_settings
from shared.settings import Settings
from tests import fake_engine
from worker.app import run
from worker.lifecycle import Worker

if __name__ == "__main__":
    settings = Settings()
    configure_logs(settings.log_level, settings.log_json)
    command = (sys.executable, str(Path(fake_engine.__file__)), "--milliseconds", sys.argv[1])
    run(settings, Worker(settings, from_settings(settings, WORKER_PATIENCE), engine_command=command))
