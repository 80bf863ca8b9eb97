"""A small file that is there whole or not at all."""

from pathlib import Path


def write_once(path: Path, text: str, anew: bool = False) -> None:
    """Write a file that everybody may read, unless it is there already; `anew` replaces it.

    Each server has a user of its own; the folder itself is mounted into no other container.
    """
    if path.exists() and not anew:
        return
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)
    beside.write_text(text)
    beside.chmod(0o444)
    beside.replace(path)
