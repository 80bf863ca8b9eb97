"""Which code may know which."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("api.wsgi", {"tensorflow", "keras"}),
        ("ops.up", {"tensorflow", "keras"}),
        # It holds bytes, and nothing that could be tricked by them.
        ("worker.app", {"tensorflow", "keras", "PIL", "numpy"}),
    ],
)
def test_no_server_parent_loads_what_is_the_engines(module: str, heavy: set[str]) -> None:
    """Imported whole, in a fresh process: the heavy libraries are in the engine alone."""
    program = f"import {module}, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
