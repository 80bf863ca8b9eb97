"""What the environment says: the only file of the client that reads it."""

from __future__ import annotations

import os

DEFAULT_URL = "http://127.0.0.1:5000"


def server_url() -> str:
    """Return `HISTOQUEUE_URL`, or where `make up` listens."""
    return os.environ.get("HISTOQUEUE_URL") or DEFAULT_URL


def api_key() -> str | None:
    """Return `HISTOQUEUE_API_KEY`; None where it is empty or not set."""
    return os.environ.get("HISTOQUEUE_API_KEY") or None
