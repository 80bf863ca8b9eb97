"""What Prometheus reads is what there is, and the page says all of it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from api import create_app
from shared.errors import JobStoreUnavailable
from shared.metrics import LEDGER, REGISTRY
from shared.services import Services
from shared.settings import Settings
from tests.unit.api.test_submission import Failing
from worker import metrics

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def series(name: str, *labels: str) -> tuple[str, ...]:
    """Return what names one series: its labels' values in no order of their own."""
    return (name, *sorted(labels))


def read(client: FlaskClient) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and the values of its labels."""
    text = client.get("/metrics").text
    return {
        series(sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_accepted_job_is_open_or_has_ended(client: FlaskClient, submit: Any, finish: Any) -> None:
    """Accepted + retried = open + ended, through an end, a cancellation, a retry and a deletion."""
    jobs = [submit().get_json() for _ in range(4)]
    finish(jobs[0]["id"])
    client.post(jobs[1]["links"]["cancel"])
    client.post(jobs[1]["links"]["self"] + "/retry")
    client.delete(jobs[2]["links"]["self"])
    found = read(client)
    ended = {name[1]: value for name, value in found.items() if name[0] == "histoqueue_jobs_ended_total"}
    assert ended == {"succeeded": 1, "canceled": 2, "failed": 0, "expired": 0}
    assert found["histoqueue_jobs_accepted_total",] == 4
    assert found["histoqueue_jobs_retried_total",] == 1
    assert found["histoqueue_jobs_open",] == 2
    assert found["histoqueue_workers",] == 1


def test_requests_are_counted_by_rule_and_never_by_what_the_caller_wrote(client: FlaskClient) -> None:
    """A caller cannot make new series."""
    before = read(client)
    for path in ("/result/a", "/result/b", "/nowhere/a", "/nowhere/b"):
        client.get(path)
    client.open("/nowhere", method="BREW")
    after = read(client)
    rule = series("histoqueue_http_requests_total", "/result/<any_id:job_id>", "GET", "404")
    assert after[rule] - before.get(rule, 0) == 2
    nowhere = series("histoqueue_http_requests_total", "none", "any", "404")
    assert after[nowhere] - before.get(nowhere, 0) == 3
    assert not any("nowhere" in " ".join(name) or "BREW" in name for name in after)


def test_an_api_server_tells_nothing_of_a_workers_own(client: FlaskClient) -> None:
    """It would be 0 for ever."""
    assert [name for name in read(client) if name[0].startswith("histoqueue_worker_")] == []


def test_without_redis_the_rest_is_told(services: Services, settings: Settings) -> None:
    """A scrape that fails tells less than one that says what is away."""
    away = Failing(services.jobs, JobStoreUnavailable("away"), "totals")
    found = read(create_app(replace(services, jobs=away), settings).test_client())
    assert found["histoqueue_ledger_up",] == 0
    assert ("histoqueue_jobs_open",) not in found


def told() -> set[tuple[str, str, str]]:
    """Return name, kind and meaning of every metric, as Prometheus sees the name."""
    families = [*REGISTRY.collect(), *metrics.REGISTRY.collect()]
    own = {(family.name, family.type, family.documentation) for family in families}
    own |= {(metric.name, metric.kind, metric.help) for metric in LEDGER}
    return {(name + "_total" if kind == "counter" else name, kind, text) for name, kind, text in own}


def test_the_page_lists_every_metric_and_no_other() -> None:
    """With its kind and in its own words."""
    rows = re.findall(r"^\| `(histoqueue_\w+)` \| (\w+) \| (.+?) \|", PAGE.read_text(), re.MULTILINE)
    assert set(rows) == told()


@pytest.mark.parametrize("name", sorted(name for name, _, _ in told()))
def test_names_say_whose_they_are(name: str) -> None:
    """One prefix."""
    assert name.startswith("histoqueue_")
