"""What a new installation needs before its servers start."""

from pathlib import Path

import pytest

from ops import prepare
from ops.prepare import main, make_bucket, make_passwords, newest_bundled_model
from shared.errors import NoModel
from shared.services import in_memory
from shared.settings import Settings, read_settings
from tests.factories import write_model


def test_passwords_are_made_once(tmp_path: Path) -> None:
    """A second start must not lock the servers out of their own data."""
    assert make_passwords(tmp_path)
    first = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert not make_passwords(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == first


def test_each_program_finds_the_same_password_in_its_own_form(tmp_path: Path) -> None:
    """The servers' settings, and the addresses and credentials that their clients use."""
    make_passwords(tmp_path)
    password = (tmp_path / "redis.conf").read_text().split('"')[1]
    assert f":{password}@redis:6379" in (tmp_path / "redis_url").read_text()
    key, secret = (tmp_path / "s3_key").read_text().strip('"').split(",")
    credentials = (tmp_path / "aws_credentials").read_text()
    assert f"aws_access_key_id = {key}\n" in credentials
    assert f"aws_secret_access_key = {secret}\n" in credentials
    assert len({password, key, secret}) == 3
    assert Settings(webhook_secret=(tmp_path / "webhook_secret").read_text()).webhook_secrets


def test_an_installation_of_an_earlier_version_gets_what_it_lacks(tmp_path: Path) -> None:
    """Its other passwords stay."""
    make_passwords(tmp_path)
    url = (tmp_path / "redis_url").read_text()
    (tmp_path / "webhook_secret").unlink()
    assert not make_passwords(tmp_path)
    assert (tmp_path / "webhook_secret").read_text().startswith("whsec_")
    assert (tmp_path / "redis_url").read_text() == url


def test_two_installations_share_no_password(tmp_path: Path) -> None:
    """Nothing is built in."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_passwords(tmp_path / name)
    assert (tmp_path / "a/redis_url").read_text() != (tmp_path / "b/redis_url").read_text()


def test_what_tells_webhooks_is_given_no_key_of_the_object_store(tmp_path: Path) -> None:
    """As compose calls it, again and again; a secret that was changed is changed there, too."""
    folders = [tmp_path / name for name in ("servers", "watchers", "webhooks")]
    for folder in folders:
        folder.mkdir()
    servers, _, webhooks = folders
    for secret in ("whsec_" + "A" * 32, "whsec_" + "B" * 32):
        assert main(["passwords", *map(str, folders)]) == 0
        assert sorted(path.name for path in webhooks.iterdir()) == ["redis_url", "webhook_secret"]
        for path in webhooks.iterdir():
            assert path.read_text() == (servers / path.name).read_text()
        (servers / "webhook_secret").unlink()
        (servers / "webhook_secret").write_text(secret)


def test_a_file_stands_for_the_variable_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers read their passwords where compose mounts them."""
    make_passwords(tmp_path)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    url = read_settings(Settings).redis_url.get_secret_value()
    assert url == (tmp_path / "redis_url").read_text()


def test_a_secret_for_webhooks_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Another one each time, in the form that the setting takes."""
    for _ in range(2):
        assert main(["webhook-secret"]) == 0
    secrets = capsys.readouterr().out.split()
    assert len(set(secrets)) == 2
    for secret in secrets:
        assert Settings(webhook_secret=secret).webhook_secrets


def test_an_empty_bucket_gets_the_bundled_model_and_a_filled_one_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an operator published is never replaced by an update of ours."""
    services = in_memory(Settings())
    write_model(tmp_path / "lung-cnn-1.0.0", "1.0.0")
    monkeypatch.setattr(prepare, "BUNDLED_MODELS", tmp_path)
    assert make_bucket(services) == "published the bundled model lung-cnn 1.0.0"
    write_model(tmp_path / "lung-cnn-1.10.0", "1.10.0")
    assert make_bucket(services) == "found model lung-cnn 1.0.0 in the bucket"


def test_nothing_is_written_to_a_bucket_that_is_only_read() -> None:
    """One without a model is said to be, and is not filled."""
    services = in_memory(Settings())
    with pytest.raises(NoModel):
        make_bucket(services, may_publish=False)
    assert services.objects.list_keys("") == []


def test_the_newest_bundled_model_is_the_one_with_the_highest_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers, not letters: 0.10.0 comes after 0.9.0."""
    for version in ("0.9.0", "0.10.0", "0.2.0"):
        (tmp_path / f"lung-cnn-{version}").mkdir()
    monkeypatch.setattr(prepare, "BUNDLED_MODELS", tmp_path)
    assert newest_bundled_model().name == "lung-cnn-0.10.0"
