"""The command that publishes versions and chooses the live one."""

from pathlib import Path

import pytest

from ops import models
from shared.model_registry import ModelRegistry
from shared.object_store_files import FileObjectStore
from tests.factories import write_model


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    """Return the versions of the installation that the environment names: none yet."""
    monkeypatch.setenv("OBJECT_STORE_DIR", str(tmp_path / "objects"))
    monkeypatch.setenv("S3_ENDPOINT_URL", "")
    store = FileObjectStore(tmp_path / "objects", "histoqueue")
    store.ensure_bucket()
    return ModelRegistry(store, "lung-cnn")


def test_a_version_is_published_and_an_older_one_used_again(
    registry: ModelRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rolling back is one command, and nothing is published anew for it."""
    for version in ("1.0.0", "1.1.0"):
        assert models.main(["publish", str(write_model(tmp_path / version, version))]) == 0
    assert "new jobs get lung-cnn 1.1.0" in capsys.readouterr().out
    assert models.main(["use", "1.0.0"]) == 0
    assert registry.live().version == "1.0.0"
    capsys.readouterr()
    assert models.main(["list"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["1.1.0", "published"],
        ["1.0.0", "live"],
    ]


def test_a_damaged_choice_is_told_and_mended(
    registry: ModelRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The versions are still listed; choosing one writes it anew."""
    assert models.main(["publish", str(write_model(tmp_path / "1.0.0", "1.0.0"))]) == 0
    current = tmp_path / "objects/histoqueue/models/lung-cnn/current.json"
    current.write_text("{")
    capsys.readouterr()
    assert models.main(["list"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == ["1.0.0", "published"]
    assert len(printed.err.splitlines()) == 1
    assert "ops.models use VERSION" in printed.err
    assert models.main(["use", "1.0.0"]) == 0
    assert registry.live().version == "1.0.0"


def test_the_bundled_version_is_published_where_none_is_named(
    registry: ModelRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an upgrade brings."""
    assert models.main(["list"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()[-1]) == ("", "no version is published")
    assert models.main(["publish"]) == 0
    assert registry.live().version == models.newest_bundled_model().name.rpartition("-")[2]


def test_what_is_not_there_changes_nothing(
    registry: ModelRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what was expected."""
    models.main(["publish", str(write_model(tmp_path / "one"))])
    for wrong in (["use", "2.0.0"], ["use", "latest"], ["publish", str(tmp_path / "nowhere")]):
        capsys.readouterr()
        assert models.main(wrong) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert len(said.splitlines()) == 1
    assert registry.live().version == "1.0.0"
