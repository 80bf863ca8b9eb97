"""Every `python -m …` of ours says how it is used, and starts nothing on the way."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("api", "benchmarks", "client/histoqueue", "ops", "shared", "training", "worker")


def commands() -> list[str]:
    """Return the modules that are programs."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    programs = [
        path.relative_to(ROOT).with_suffix("")
        for path in files
        # The peers' servers are started by their paths, with the packages of another environment.
        if "peers" not in path.parts and ".cache" not in path.parts
        if path.name == "__main__.py" or 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    ]
    return sorted(".".join(path.parts).removeprefix("client.").removesuffix(".__main__") for path in programs)


@pytest.mark.parametrize("command", commands())
@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--no-such-option", 2)])
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_a_command_says_how_it_is_used(
    command: str,
    argument: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Help is asked for before the environment is read: with this one, no server could be reached."""
    monkeypatch.setenv("REDIS_URL", "no address")
    monkeypatch.setattr(sys, "argv", [command, argument])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    assert ended.value.code == status
    said = capsys.readouterr()
    assert "usage: " in (said.err if status else said.out)
