"""A checkout made on Windows works: nothing that is run gets its carriage returns, or it bears them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.prepare import make_passwords
from shared.settings import Settings, read_settings

ROOT = Path(__file__).resolve().parents[2]
#: What a shell, make, Redis or Docker reads line by line, and trips over a carriage return.
READ_BY_LINE = ("Makefile", ".ci/run", "requirements/lock.sh", "Dockerfile.api", "Dockerfile.worker",
                "docker-compose.yml", ".env.example", "deploy/redis/users.acl")  # fmt: skip


@pytest.fixture(scope="module")
def windows_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as git for Windows makes it by default."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no git checkout")
    folder = tmp_path_factory.mktemp("clone") / "histoqueue"
    command = [
        "git",
        "clone",
        "--quiet",
        "--shared",
        "--config",
        "core.autocrlf=true",
        str(ROOT),
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_clone_on_windows_has_no_carriage_return(windows_clone: Path) -> None:
    """`.gitattributes` comes before the user's own `core.autocrlf`."""
    listed = subprocess.run(
        ["git", "ls-files", "--eol"], cwd=windows_clone, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(listed) > 200
    assert [line for line in listed if "w/crlf" in line or "w/mixed" in line] == []
    for name in READ_BY_LINE:
        path = windows_clone / name
        assert not path.exists() or b"\r" not in path.read_bytes(), name


def test_without_the_attributes_it_would_have_them(windows_clone: Path, tmp_path: Path) -> None:
    """So the test above can fail."""
    (tmp_path / "a.sh").write_text("#!/bin/sh\necho hello\n")
    git = [
        "git",
        "-C",
        str(tmp_path),
        "-c",
        "core.autocrlf=true",
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@y",
    ]
    for step in (["init", "--quiet"], ["add", "a.sh"], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *step], check=True, capture_output=True)
    (tmp_path / "a.sh").unlink()
    subprocess.run([*git, "checkout", "--quiet", "--", "a.sh"], check=True, capture_output=True)
    assert b"\r\n" in (tmp_path / "a.sh").read_bytes()


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """A copy whose every text file was rewritten by an editor or an archive program on Windows."""
    for folder in ("shared", "ops"):
        for source in (ROOT / folder).rglob("*"):
            if source.suffix in (".py", ".lua"):
                target = tmp_path / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    return tmp_path


def test_converted_code_and_scripts_still_run(converted: Path) -> None:
    """Python reads them, and the Lua that is sent to Redis has none."""
    program = (
        "from shared.job_store_redis import RedisJobStore, connect\n"
        "store = RedisJobStore(connect('redis://127.0.0.1:1', 1))\n"
        "texts = [script.script for script in store._scripts.values()]\n"
        "assert len(texts) > 10\n"
        "assert all('\\r' not in text for text in texts)\n"
    )
    for command in (["-c", program], ["-m", "ops.prepare", "passwords", str(converted)]):
        subprocess.run([sys.executable, *command], cwd=converted, check=True, capture_output=True)
    assert b"\r" not in (converted / "redis_url").read_bytes()


def test_a_secret_saved_on_windows_is_the_same_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor's last line ending is no part of a password."""
    make_passwords(tmp_path)
    path = tmp_path / "redis_url"
    expected = path.read_text()
    path.chmod(0o644)
    path.write_bytes(expected.encode() + b"\r\n")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    assert read_settings(Settings).redis_url.get_secret_value() == expected
