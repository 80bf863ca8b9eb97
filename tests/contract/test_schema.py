"""Requests that nobody here thought of, made from the served document: every answer is one that it states.

`make fuzz` makes many more of them.
"""

import os
import subprocess
import sys
from pathlib import Path

from api.context import context
from ops.prepare import webhook_secret
from shared.api_keys import KeyStore, Scope
from tests.api_server import ApiServer
from tests.factories import png_bytes

ROOT = Path(__file__).resolve().parents[2]
#: Schemathesis' own list of what a sound request may be answered, and 410 and 412: its job may be deleted by
#: then, and an If-Match is made up.
CHECKS = """[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "410", "412", "429", "5xx"]
"""
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "5")
#: The same requests at each run of `make test`; others at each `make fuzz`.
SEED = os.environ.get("FUZZ_SEED", "1")


def test_every_answer_is_one_that_the_document_states(tmp_path: Path) -> None:
    """All checks of schemathesis: status, headers, type, body; what is sound is accepted, nothing else."""
    with ApiServer(
        tmp_path,
        max_open_jobs=10_000_000,
        max_waiters=0,
        webhook_secret=webhook_secret(),
        batch_key_prefix="incoming/",
    ) as server:
        for number in range(10):
            server.services.objects.put(f"incoming/{number}.png", png_bytes(seed=number), "image/png")
        key = KeyStore(server.services.objects).create("fuzz", frozenset({Scope.ADMIN}))[1]
        context(server.app).keys.refresh()
        (tmp_path / "schemathesis.toml").write_text(CHECKS)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
                *("--checks", "all", "--max-examples", EXAMPLES, "--seed", SEED, "--no-color"),
                *("--header", f"Authorization: Bearer {key}", "--continue-on-failure"),
            ],
            # Away from the tree: it keeps files where it runs.
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.fuzz_hooks"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
