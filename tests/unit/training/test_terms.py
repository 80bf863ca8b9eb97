from pathlib import Path

import pytest

from ops.prepare import newest_bundled_model
from shared.manifest import MANIFEST_NAME, parse_manifest
from training.errors import TrainingError
from training.terms import LC25000_LUNG, NOTICE_NAME, describe_dataset, notice_of


def test_the_bundled_model_is_of_the_tiles_that_the_words_are_about(tmp_path: Path) -> None:
    """Its notice and its manifest are what a new version of the same tiles would have."""
    folder = newest_bundled_model()
    training = parse_manifest((folder / MANIFEST_NAME).read_bytes()).training
    assert training["dataset_sha256"] == LC25000_LUNG
    assert training["dataset"] == describe_dataset(LC25000_LUNG)
    assert notice_of(LC25000_LUNG, tmp_path) == (folder / NOTICE_NAME).read_text(encoding="utf-8")


@pytest.mark.parametrize("sha256", [LC25000_LUNG, "0" * 64])
def test_what_a_folder_says_of_its_tiles_goes_into_the_notice(tmp_path: Path, sha256: str) -> None:
    """In place of the words that are known here."""
    (tmp_path / NOTICE_NAME).write_text("Tiles of the H\xf6henklinik, CC BY 4.0.\n\n", encoding="utf-8")
    text = notice_of(sha256, tmp_path)
    assert "\n\nTiles of the H\xf6henklinik, CC BY 4.0.\n\n" in text
    assert "LC25000" not in text
    assert "has not said" not in text


def test_words_that_are_no_text_are_named(tmp_path: Path) -> None:
    """Before anything is published."""
    (tmp_path / NOTICE_NAME).write_bytes(b"M\xfcnchen")
    with pytest.raises(TrainingError, match="to be text in UTF-8"):
        notice_of("0" * 64, tmp_path)
