"""What docker-compose.yml says of every service, read without an engine (tests/compose has one)."""

from pathlib import Path
from typing import Any

import pytest
import yaml

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[2] / "docker-compose.yml").read_text(encoding="utf-8")
)["services"]
#: Runs once, and says a line.
ONE_SHOT = {"passwords"}
OURS = {"bucket", "api", "worker", "worker-gpu", "webhooks"}


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOT))
def test_no_log_fills_the_disk(name: str) -> None:
    """Docker's own default has no bound."""
    assert SERVICES[name]["logging"] == {"driver": "local"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_settings_of_a_file_reach_ours(name: str) -> None:
    """And no file is needed."""
    assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]


def test_an_empty_number_of_processes_is_none() -> None:
    """In every other setting it is; gunicorn's own reading of it ended with a traceback."""
    assert SERVICES["api"]["environment"]["WEB_CONCURRENCY"] == "${WEB_CONCURRENCY:-1}"


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOT))
def test_nobody_gains_rights(name: str) -> None:
    """By a program that belongs to root."""
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


def test_what_tells_webhooks_has_no_key_of_the_object_store() -> None:
    """It needs none, and sends to hosts that users name: a volume of its own, and nothing of `.env`."""
    service = SERVICES["webhooks"]
    assert service["volumes"] == ["webhooks:/run/histoqueue:ro"]
    given = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    assert given.items() <= service["environment"].items()
