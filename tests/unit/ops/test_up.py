"""What `make up` does about what does not start, without starting any of it."""

import sys
import time
from pathlib import Path

import pytest

from ops import up
from ops.processes import Child
from shared.errors import ObjectStoreUnavailable


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> up.Supervisor:
    """Return one whose words are in `said`, and which does not wait before it starts a child again."""
    monkeypatch.setattr(up, "RESTART_AFTER_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(up, "START_TIMEOUT_SECONDS", 0.2)
    return up.Supervisor(SAID.append)


SAID: list[str] = []


def test_a_child_that_cannot_be_started_is_tried_again(supervisor: up.Supervisor, tmp_path: Path) -> None:
    """Its program is gone for a while, or ends before it has read what it is told: the others run on."""
    program = tmp_path / "program"

    def write() -> None:
        program.write_text(f"#!{sys.executable}\nimport time; time.sleep(60)\n")
        program.chmod(0o700)

    write()
    child = Child("program", [str(program)], tmp_path / "log")
    supervisor.start(child)
    try:
        program.unlink()
        child.kill()
        for _ in range(4):
            supervisor.look()
        assert any("program did not start" in line for line in SAID)
        write()
        end = time.monotonic() + 10
        while not child.is_running and time.monotonic() < end:
            supervisor.look()
        assert child.is_running
    finally:
        child.kill()


def test_a_given_server_that_does_not_answer_is_told_with_the_cause(supervisor: up.Supervisor) -> None:
    """It is no child of ours: none of its logs is here."""

    def ask() -> None:
        raise ObjectStoreUnavailable("away") from ConnectionError("nobody listens on store:9000")

    with pytest.raises(up.CannotStart, match=r"the object store was not ready.*nobody listens on store:9000"):
        up._wait_for_given(supervisor, "the object store", ask)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{"])
def test_passwords_that_are_none_are_said_in_one_line(tmp_path: Path, text: str) -> None:
    """With what mends it."""
    path = tmp_path / "secrets.json"
    path.write_text(text)
    with pytest.raises(up.CannotStart, match=r"secrets\.json.*Remove it"):
        up._passwords(path)
    path.unlink()
    made = up._passwords(path)
    assert up._passwords(path) == made
