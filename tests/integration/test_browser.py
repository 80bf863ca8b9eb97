"""The pages work in a browser as they are sent, under their own content security policy."""

import shutil
import subprocess
from pathlib import Path

import pytest

from api.operations import OPERATIONS
from tests.api_server import ApiServer

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: Debian's package chromium"),
]


def open_page(url: str, profile: Path) -> tuple[str, list[str]]:
    """Return the page's elements once its scripts have run, and what the browser complained of."""
    assert CHROMIUM
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *options, url], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_of_the_contract_shows_every_operation(tmp_path: Path) -> None:
    """Nothing that it loads or runs is refused."""
    with ApiServer(tmp_path) as server:
        page, complaints = open_page(f"{server.url}/docs", tmp_path / "profile")
    assert complaints == []
    assert page.count('class="opblock-summary-path"') == len(OPERATIONS)
