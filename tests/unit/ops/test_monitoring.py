"""The passwords of those who look on."""

import hashlib
from pathlib import Path

import pytest

from ops.monitoring import make_monitoring
from ops.prepare import main, make_passwords


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The servers' folder, filled, and an empty one."""
    servers, watchers = tmp_path / "servers", tmp_path / "watchers"
    servers.mkdir()
    watchers.mkdir()
    make_passwords(servers)
    return servers, watchers


def contents(*folders: Path) -> dict[str, str]:
    return {str(path): path.read_text() for folder in folders for path in folder.iterdir()}


def test_they_are_made_once(folders: tuple[Path, Path]) -> None:
    """Also for an installation that is older than they are."""
    make_monitoring(*folders, "redis")
    first = contents(*folders)
    make_monitoring(*folders, "redis")
    assert contents(*folders) == first


def test_no_password_of_a_server_is_shown_to_those_who_look_on(folders: tuple[Path, Path]) -> None:
    """They get the key of /metrics and a user of their own in Redis."""
    servers, watchers = folders
    secrets = {(servers / "redis_url").read_text().split(":")[2].split("@")[0]}
    secrets |= set((servers / "s3_key").read_text().strip('"').split(","))
    make_monitoring(servers, watchers, "redis")
    shown = " ".join(contents(watchers).values())
    assert len(secrets) == 3
    assert not any(secret in shown for secret in secrets)
    assert (watchers / "metrics_key").read_text() == (servers / "metrics_key").read_text()


def test_redis_lets_flower_in_and_everybody_else_as_before(folders: tuple[Path, Path]) -> None:
    """By the digest of the password that stands in Flower's address."""
    servers, watchers = folders
    before = (servers / "redis.conf").read_text().splitlines()
    make_monitoring(servers, watchers, "redis")
    *same, line = (servers / "redis.conf").read_text().splitlines()
    assert same == before
    password = (watchers / "flower_url").read_text().split(":")[2].split("@")[0]
    assert f"user flower on #{hashlib.sha256(password.encode()).hexdigest()} " in line
    assert "-@all" in line


def test_a_lost_volume_of_theirs_is_filled_anew(folders: tuple[Path, Path]) -> None:
    """Redis' settings then hold the new password, and one user."""
    servers, watchers = folders
    make_monitoring(servers, watchers, "redis")
    for path in watchers.iterdir():
        path.unlink()
    make_monitoring(servers, watchers, "redis")
    text = (servers / "redis.conf").read_text()
    password = (watchers / "flower_url").read_text().split(":")[2].split("@")[0]
    assert text.count("user flower ") == 1
    assert hashlib.sha256(password.encode()).hexdigest() in text


def test_the_command_fills_both_folders(tmp_path: Path) -> None:
    """As compose calls it."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert main(["passwords", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert (tmp_path / "a/redis_url").exists()
    assert (tmp_path / "b/flower_url").exists()
