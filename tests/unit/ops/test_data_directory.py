"""The passwords of a data directory, and who may read them."""

from pathlib import Path

import pytest

from ops.data_directory import locked, passwords
from ops.supervisor import CannotStart


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"redis": null}', '{"redis": 5}', '{"redis": ""}'])
def test_passwords_that_are_none_are_said_in_one_line(tmp_path: Path, text: str) -> None:
    """With what mends it."""
    path = tmp_path / "secrets.json"
    path.write_text(text)
    with pytest.raises(CannotStart, match=r"secrets\.json.*Remove it"):
        passwords(path)
    path.unlink()
    made = passwords(path)
    assert passwords(path) == made


def test_what_is_in_the_data_directory_is_its_owners_alone(tmp_path: Path) -> None:
    """Passwords, and every image."""
    with locked(tmp_path / "data"):
        passwords(tmp_path / "data/secrets.json")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data/secrets.json").stat().st_mode & 0o777 == 0o600
