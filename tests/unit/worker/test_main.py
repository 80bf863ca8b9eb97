"""`python -m worker`, as far as it goes without any server."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_folder_of_the_apis_counts_is_nothing_to_a_worker() -> None:
    """A `.env` names it to all; the API alone makes it, and tells whatever is counted in it."""
    ended = subprocess.run(
        [sys.executable, "-m", "worker"],
        cwd=ROOT,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": "/nowhere", "MAX_BATCH_SIZE": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stderr.startswith("error: MAX_BATCH_SIZE: ")
    assert len(ended.stderr.splitlines()) == 1
