"""The containers that these tests share: built and started once."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from ops.servers import free_port
from tests.compose.project import PROJECT, Compose


def _exit_status(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.fixture(scope="session")
def compose() -> Iterator[Compose]:
    """A project of our own, gone with its volumes afterwards."""
    if shutil.which("docker") is None or _exit_status("docker", "info"):
        pytest.fail("Expected a Docker engine that answers. Start one, or leave `make compose-test` out.")
    project = Compose(free_port())
    project.run("build", "--quiet")
    try:
        project.up()
        yield project
    finally:
        project.http.close()
        project.run("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "10")
        left = subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert left.stdout == ""
