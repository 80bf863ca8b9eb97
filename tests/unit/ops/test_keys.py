"""The command that makes, lists and revokes API keys."""

import json
import os
from pathlib import Path

import pytest

from ops import installation, keys
from shared.api_keys import KeyStore, Scope
from shared.object_store_files import FileObjectStore
from shared.object_store_memory import MemoryObjectStore


@pytest.fixture
def objects() -> MemoryObjectStore:
    return MemoryObjectStore()


def test_a_key_is_shown_once_and_kept_as_a_digest(
    objects: MemoryObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is the key and nothing else; what is stored would open nothing."""
    keys.create(KeyStore(objects), "lab", ["submit"])
    text = capsys.readouterr().out.strip()
    (stored,) = objects.list_keys("keys/")
    assert text.split("_", 2)[2] not in objects.get(stored, 10_000).decode()
    found = KeyStore(objects).read().find(text)
    assert found
    assert (found.name, found.scopes) == ("lab", {Scope.SUBMIT})
    keys.show(KeyStore(objects))
    shown = capsys.readouterr().out
    assert "lab" in shown
    assert "valid" in shown
    assert text not in shown


def test_no_two_keys_are_alike(objects: MemoryObjectStore) -> None:
    """256 random bits each."""
    made = {KeyStore(objects).create("a", frozenset(Scope))[1] for _ in range(50)}
    assert len({text.split("_", 2)[2] for text in made}) == 50


def test_revoking_is_for_good_and_may_be_repeated(
    objects: MemoryObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list says so."""
    store = KeyStore(objects)
    record, text = store.create("a", frozenset(Scope))
    for _ in range(2):
        keys.revoke(store, record.id)
    assert store.read().find(text) is None
    keys.show(store)
    assert "revoked" in capsys.readouterr().out.splitlines()[-1]


def test_what_was_never_there_cannot_be_revoked(objects: MemoryObjectStore) -> None:
    """A typing error must not look like a success."""
    with pytest.raises(SystemExit, match="no key"):
        keys.revoke(KeyStore(objects), "0123456789abcdef")


def test_a_record_that_cannot_be_read_opens_nothing_and_still_locks(
    objects: MemoryObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged object is no reason to let everybody in; the list names it, and goes on."""
    objects.put("keys/0123456789abcdef.json", b"{", "application/json")
    ring = KeyStore(objects).read()
    assert not ring.is_empty
    assert ring.find("hq_0123456789abcdef_" + "A" * 43) is None
    KeyStore(objects).create("whole", frozenset(Scope))
    keys.show(KeyStore(objects))
    shown = capsys.readouterr().out
    assert "0123456789abcdef  valid  cannot be read" in shown
    assert "whole" in shown


def test_the_command_makes_a_key_that_submits_and_reads_and_revokes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An admin's is made where it is asked for alone; a store that is away is one line and status 1."""
    monkeypatch.setenv("OBJECT_STORE_DIR", str(tmp_path))
    monkeypatch.setenv("S3_ENDPOINT_URL", "")
    objects = FileObjectStore(tmp_path, "histoqueue")
    for command in (["list"], ["create", "--name", "lab"]):
        assert keys.main(command) == 1
        said = capsys.readouterr()
        assert (said.out, len(said.err.splitlines())) == ("", 1)
        assert said.err.startswith("error: OBJECT_STORE_UNAVAILABLE")
    objects.ensure_bucket()
    assert keys.main(["list"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()[-1].partition(":")[0]) == ("", "there is no key")
    for more, scopes in (([], {Scope.SUBMIT, Scope.READ}), (["--scope", "admin"], {Scope.ADMIN})):
        assert keys.main(["create", "--name", "lab", *more]) == 0
        text = capsys.readouterr().out.strip()
        found = KeyStore(objects).read().find(text)
        assert found
        assert found.scopes == scopes
    assert keys.main(["revoke", found.id]) == 0
    assert KeyStore(objects).read().find(text) is None
    capsys.readouterr()
    assert keys.main(["list"]) == 0
    assert sorted(line.split()[1] for line in capsys.readouterr().out.splitlines()) == ["revoked", "valid"]


def test_the_command_works_at_the_servers_of_make_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says so; those of one that was killed before it could take its word back count no more."""
    for name in ("REDIS_URL", "S3_ENDPOINT_URL", "SECRETS_DIR", "OBJECT_STORE_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    for folder in ("killed", "objects"):
        installation.leave_address(tmp_path, {"OBJECT_STORE_DIR": str(tmp_path / folder)})
    objects = FileObjectStore(tmp_path / "objects", "histoqueue")
    objects.ensure_bucket()
    assert keys.main(["create", "--name", "lab"]) == 0
    said = capsys.readouterr()
    assert f"using the servers of `make up` in {tmp_path}" in said.err
    assert KeyStore(objects).read().find(said.out.strip())


def test_the_command_finds_the_servers_of_make_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the file that they leave, which its owner alone may read; what the environment says comes first."""
    for name in ("REDIS_URL", "S3_ENDPOINT_URL", "SECRETS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert installation.join() is None
    installation.leave_address(tmp_path, {"HISTOQUEUE_TEST_ONLY": "7"})
    assert (tmp_path / "servers.json").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("HISTOQUEUE_TEST_ONLY", "")
    assert installation.join() == str(tmp_path)
    assert os.environ["HISTOQUEUE_TEST_ONLY"] == "7"
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    assert installation.join() is None
    assert json.loads((tmp_path / "servers.json").read_text())["HISTOQUEUE_TEST_ONLY"] == "7"


def test_what_was_given_to_make_up_names_its_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Redis of one's own, as the shell that started it still has it; and the folder, as `.env` says it."""
    for name in ("REDIS_URL", "S3_ENDPOINT_URL", "SECRETS_DIR", "OBJECT_STORE_DIR", "DATA_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("DATA_DIR=here\n")
    (tmp_path / "here").mkdir()
    assert installation.join() is None
    assert "no `make up` runs on here" in capsys.readouterr().err
    monkeypatch.setenv("REDIS_URL", "redis://mine")
    installation.leave_address(tmp_path / "here", {"OBJECT_STORE_DIR": "objects"})
    assert installation.join() == "here"
    assert os.environ["OBJECT_STORE_DIR"] == "objects"
    monkeypatch.setenv("REDIS_URL", "")
    assert installation.join() == "here"
    assert os.environ["REDIS_URL"] == "redis://mine"
    monkeypatch.setenv("OBJECT_STORE_DIR", "elsewhere")
    assert installation.join() is None


def test_a_command_has_the_settings_of_make_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in another bucket would open nothing, and another retention would remove what is to be kept."""
    given = {
        "S3_BUCKET": "tiles",
        "S3_PREFIX": "lab/",
        "MODEL_NAME": "colon-cnn",
        "RESULT_RETENTION_SECONDS": "31536000",
        "AWS_ACCESS_KEY_ID": "ours",
    }
    with monkeypatch.context() as makes:
        for name, value in (given | {"EDITOR": "vi", "S3_REGION": ""}).items():
            makes.setenv(name, value)
        installation.leave_address(tmp_path, {"REDIS_URL": "redis://127.0.0.1:1"})
    for name in [*given, "REDIS_URL", "S3_ENDPOINT_URL", "OBJECT_STORE_DIR", "SECRETS_DIR", "EDITOR"]:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert installation.join() == str(tmp_path)
    assert {name: os.environ[name] for name in given} == given
    assert os.environ["EDITOR"] == ""


def test_a_store_that_cannot_be_written_is_told_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who reads it is the one who can mend it."""
    (tmp_path / "histoqueue").mkdir()
    (tmp_path / "histoqueue/keys").write_text("no folder")
    monkeypatch.setenv("OBJECT_STORE_DIR", str(tmp_path))
    monkeypatch.setenv("S3_ENDPOINT_URL", "")
    assert keys.main(["create", "--name", "lab"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: OBJECT_STORE_UNAVAILABLE: ")
    assert line.endswith(f"File exists: '{tmp_path}/histoqueue/keys'")


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101])
def test_a_name_that_would_spoil_the_list_is_refused(name: str) -> None:
    """It is said before anything is made."""
    with pytest.raises(SystemExit):
        keys.main(["create", "--name", name])
