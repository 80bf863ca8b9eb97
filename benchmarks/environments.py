"""An environment of its own for each peer, made once from its locked requirements."""

import hashlib
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parent / "peers"


def python_of(peer: str, cache: Path) -> Path:
    """Return the interpreter of a peer's environment; makes it, or makes it anew where the lock has changed.

    Raises:
        subprocess.CalledProcessError: if a package cannot be installed.
    """
    requirements = PEERS / f"{peer}.txt"
    folder = cache / "environments" / peer
    python, stamp = folder / "bin" / "python", folder / "lock.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        stamp.unlink(missing_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        install = [sys.executable, "-m", "uv", "pip", "sync", "--quiet", "--require-hashes"]
        _run([*install, "--python", str(python), str(requirements)])
        # Last: an installation that broke off is made again.
        stamp.write_text(digest)
    return python


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)
