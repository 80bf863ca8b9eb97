"""A server that takes batches of thirty items, and how a test submits one."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.settings import Settings
from tests.factories import png_bytes

Finish = Callable[[str], None]
TILES = {f"x{number}_y0.png": png_bytes(seed=number) for number in range(3)}


@pytest.fixture
def settings() -> Settings:
    return Settings(
        max_image_bytes=300_000,
        max_image_pixels=1_000_000,
        max_open_jobs=20,
        max_batch_items=30,
        max_batch_bytes=2_000_000,
        batch_key_prefix="incoming/",
    )


def send_zip(client: FlaskClient, body: bytes, **how: Any) -> Any:
    """Submit an archive as the body."""
    return client.post("/batches", data=body, content_type="application/zip", **how)


def send_files(client: FlaskClient, files: dict[str, bytes], **how: Any) -> Any:
    """Submit files as a form."""
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), body)
        for name, body in files.items()
    ]
    body = b"".join([*parts, b"--x--\r\n"])
    return client.post("/batches", data=body, content_type="multipart/form-data; boundary=x", **how)


def codes(answer: Any) -> dict[str, str]:
    """Return the problems of a submission: name -> code."""
    return {item["custom_id"]: item["code"] for item in answer.json["problems"]}
