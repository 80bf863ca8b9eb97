"""A supervisor that does not wait, and what it said."""

import pytest

import ops.supervisor
from ops import up
from ops.supervisor import Supervisor


@pytest.fixture
def said() -> list[str]:
    """The supervisor's words, line by line."""
    return []


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> Supervisor:
    """Return one whose words are in `said`, and which does not wait before it starts a child again."""
    monkeypatch.setattr(ops.supervisor, "RESTART_AFTER_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(up, "START_TIMEOUT_SECONDS", 0.2)
    return Supervisor(said.append)
