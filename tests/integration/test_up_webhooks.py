"""`make up` tells webhooks without a setting: it makes the secret, runs the role, refuses what is inside."""

import pytest

from ops.processes import wait_until
from tests.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.tensorflow]


def test_a_webhook_is_tried_as_soon_as_its_job_has_ended(stack: Stack, tile: bytes) -> None:
    """Its name is one that never is (RFC 6761), so the attempt is all that there can be."""
    answer = stack.client.post(
        "/predict",
        content=tile,
        params={"webhook_url": "https://receiver.invalid/hook"},
        headers={"Content-Type": "image/png"},
    )
    assert answer.status_code == 202, answer.text
    path = str(answer.headers["Location"])
    assert stack.finish(path)["status"] == "succeeded"

    def tries() -> list[dict[str, object]]:
        (delivery,) = stack.client.get(f"{path}/deliveries").json()["deliveries"]
        found: list[dict[str, object]] = delivery["tries"]
        return found

    assert wait_until(lambda: bool(tries()), 40, 0.2), stack.story()
    assert tries()[0]["status"] is None
    assert tries()[0]["error"] in ("name_not_found", "timeout")


def test_this_machine_is_not_told(stack: Stack, tile: bytes) -> None:
    """Unless its operator lists it."""
    answer = stack.client.post(
        "/predict",
        content=tile,
        params={"webhook_url": stack.url},
        headers={"Content-Type": "image/png"},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "WEBHOOK_REFUSED")
