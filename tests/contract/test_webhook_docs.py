"""The receiver that the how-to shows is run as it stands there, and told by the real deliverer."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from ops.prepare import webhook_secret
from ops.processes import Child, wait_until
from ops.servers import HOST, free_port, port_is_free
from shared.deliveries import DeliveryState, Taken, batch_subject, job_subject
from shared.job_store_memory import MemoryJobStore
from shared.schemas import NewBatch, new_job_id
from shared.settings import Settings
from tests.work import claim, new_job, succeed
from worker.webhook_delivery import Deliverer

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/webhooks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("knows_the_secret", [True, False])
def test_the_receiver_of_the_page_takes_what_is_signed_and_nothing_else(
    tmp_path: Path, knows_the_secret: bool
) -> None:
    """It prints an event once, although it comes twice."""
    (code,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    (tmp_path / "receiver.py").write_text(code)
    secret, port = webhook_secret(), free_port()
    known = secret if knows_the_secret else webhook_secret()
    receiver = Child(
        "receiver",
        [sys.executable, str(tmp_path / "receiver.py")],
        tmp_path / "receiver.log",
        {**os.environ, "WEBHOOK_SECRET": known, "PORT": str(port)},
    )
    jobs = MemoryJobStore()
    settings = Settings(webhook_secret=SecretStr(secret), webhook_allow_cidrs="127.0.0.0/8")
    messages: list[Taken] = []
    deliverer = Deliverer(jobs.deliveries, settings, messages.append)
    job_id, batch_id = (end(jobs, f"http://{HOST}:{port}/") for end in (_ended, _completed_batch))
    receiver.start()
    try:
        assert wait_until(lambda: not port_is_free(port), 20), receiver.log.read_text()
        for _ in range(2):
            deliverer.dispatch()
            while messages:
                deliverer.run(messages.pop())
            jobs.deliveries.redeliver(job_subject(job_id))
    finally:
        receiver.stop(10)
    (delivery,) = jobs.deliveries.of(job_subject(job_id))
    assert [made.status for made in delivery.tries] == [204 if knows_the_secret else 400] * 2
    assert delivery.state == DeliveryState.PENDING  # the last wish to tell it once more
    (of_batch,) = jobs.deliveries.of(batch_subject(batch_id))
    assert [made.status for made in of_batch.tries] == [204 if knows_the_secret else 400]
    for printed in (f"job.succeeded {job_id} lung_aca", f"batch.completed {batch_id} {{"):
        assert receiver.log.read_text().count(printed) == (1 if knows_the_secret else 0), printed


def test_the_command_of_the_page_prints_a_secret() -> None:
    """One that the settings accept."""
    assert "python -m ops.prepare webhook-secret" in PAGE
    command = [sys.executable, "-m", "ops.prepare", "webhook-secret"]
    secret = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert Settings(webhook_secret=SecretStr(secret)).webhook_secrets == [secret]


def test_every_word_for_a_failed_attempt_is_on_the_page() -> None:
    """Whoever reads it in a list of deliveries can look it up."""
    source = (Path(__file__).resolve().parents[2] / "worker/webhook_http.py").read_text(encoding="utf-8")
    words = set(re.findall(r'"((?:no|name|not|forbidden)_\w+|redirect|gone|timeout|tls)"', source))
    assert len(words) == 9
    for word in words:
        assert f"`{word}`" in PAGE


def _completed_batch(jobs: MemoryJobStore, url: str) -> str:
    new = NewBatch(
        id=new_job_id(), webhook_url=url, expires_in_seconds=600, retention_seconds=600, tombstone_seconds=600
    )
    jobs.create_batch(new)
    jobs.batch(new.id, seal=True)
    return new.id


def _ended(jobs: MemoryJobStore, url: str) -> str:
    new = new_job(webhook_url=url)
    jobs.create(new, 10)
    claim(jobs, new.id)
    succeed(jobs, new.id, {"class": "lung_aca"})
    return new.id
