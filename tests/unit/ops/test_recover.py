"""What the comparison by hand says of itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops import installation, recover
from shared.errors import JobStoreUnavailable
from shared.services import Services, in_memory
from shared.settings import Settings
from tests.work import Clock


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    """Return those of the installation that the command finds."""
    made = in_memory(Settings(), Clock(1_800_000_000_000))
    monkeypatch.setattr(recover, "reach", lambda: made)
    monkeypatch.setattr(recover, "configure_logs", lambda *_: None)
    return made


def test_what_was_found_is_told(services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    """Also what nobody can read."""
    name = "uploads/2027/01/15/00000000-0000-4000-8000-000000000000"
    services.objects.put(name, b"an image without its job", "image/png")
    assert recover.main([]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "0 jobs restored, 0 objects past their retention removed, 1 uploads not understood"


def test_a_comparison_that_cannot_be_made_says_why(
    services: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process is at it, or the ledger is away; whoever calls this sees it by the status."""
    assert services.jobs.begin_sweep(60)
    assert recover.main([]) == 1
    assert "another process is comparing them" in capsys.readouterr().err

    def away(_: float) -> bool:
        raise JobStoreUnavailable("The job store does not answer.")

    monkeypatch.setattr(services.jobs, "begin_sweep", away)
    assert recover.main([]) == 1
    assert capsys.readouterr().err == "error: JOB_STORE_UNAVAILABLE: The job store does not answer.\n"


def test_it_says_which_installation_it_compares(tmp_path: Path) -> None:
    """As the other commands do: there may be several on a machine. This one's Redis is away."""
    installation.leave_address(
        tmp_path, {"REDIS_URL": "redis://127.0.0.1:1/0", "OBJECT_STORE_DIR": str(tmp_path / "objects")}
    )
    named = ("REDIS_URL", "S3_ENDPOINT_URL", "OBJECT_STORE_DIR", "SECRETS_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    done = subprocess.run(
        [sys.executable, "-m", "ops.recover"],
        env={**environment, "DATA_DIR": str(tmp_path)},
        text=True,
        capture_output=True,
        check=False,
    )
    first, last = done.stderr.splitlines()
    assert first == f"using the servers of `make up` in {tmp_path}"
    assert last.startswith("error: JOB_STORE_UNAVAILABLE: ")
    assert (done.returncode, done.stdout) == (1, "")
