"""Which code may know which."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["api.wsgi", "worker.app", "ops.up"])
def test_no_server_parent_loads_tensorflow(module: str) -> None:
    """Imported whole, in a fresh process: the heavy library is in the engine alone."""
    program = f"import {module}, sys; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_workers_parent_cannot_decode() -> None:
    """It holds bytes, and nothing that could be tricked by them."""
    program = "import worker.app, sys; print([m for m in ('PIL', 'numpy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
