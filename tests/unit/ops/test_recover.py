"""What the comparison by hand says of itself."""

import pytest

from ops import recover
from shared.errors import JobStoreUnavailable
from shared.services import Services, in_memory
from shared.settings import Settings
from tests.work import Clock


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    """Return those of the installation that the command finds."""
    made = in_memory(Settings(), Clock(1_800_000_000_000))
    monkeypatch.setattr(recover, "from_settings", lambda *_: made)
    for name in ("join", "configure_logs"):
        monkeypatch.setattr(recover, name, lambda *_: None)
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
