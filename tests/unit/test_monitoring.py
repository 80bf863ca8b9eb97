"""Alerts, dashboard and scrape configuration speak of metrics that exist, in queries that parse."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.metrics_core import Metric

from shared import keys
from shared.metrics import LEDGER, REGISTRY
from shared.schemas import JobStatus
from shared.task_queue import QUEUES
from worker import metrics
from worker.tasks import MOST_STRIKES

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/monitoring"
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())
DASHBOARD = json.loads((FOLDER / "grafana/dashboards/histoqueue.json").read_text())
PAGE = (ROOT / "docs/how-to/monitoring.md").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SCRAPE = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
QUERIES = [rule["expr"] for rule in ALERTS] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


def samples_of(family: Metric) -> set[str]:
    """Return the names under which Prometheus keeps a family."""
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
    return {family.name + ending for ending in endings}


def exported() -> set[str]:
    """Return every series' name that an API server or a worker tells."""
    ours = set().union(*(samples_of(family) for family in (*REGISTRY.collect(), *metrics.REGISTRY.collect())))
    return ours | {m.name + ("_total" if m.kind == "counter" else "") for m in LEDGER}


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_parses_and_names_metrics_that_are_told(query: str) -> None:
    """A name that is spelled wrong draws an empty panel, and an alert that never comes."""
    promql_parser.parse(query)
    names = set(re.findall(r"\bhistoqueue_\w+", query))
    assert names <= exported()
    assert names or query.startswith("up{")


def test_the_parser_finds_what_is_wrong() -> None:
    """So the test above can fail."""
    for broken in ("sum(rate(a[5m])", "rate(a)", "a ++ b !"):
        with pytest.raises(ValueError, match=r"."):
            promql_parser.parse(broken)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_how_much_it_matters(rule: dict[str, Any]) -> None:
    """And is explained on the page; no field is spelled wrong."""
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"].endswith(".")
    assert f"| `{rule['alert']}` |" in PAGE


def test_what_is_to_be_done_names_events_that_are_logged() -> None:
    """Whoever is called at night looks for these words."""
    rows = dict(re.findall(r"^\| `(HistoQueue\w+)` \|.+\| (.+) \|$", PAGE, re.MULTILINE))
    assert rows.keys() == {rule["alert"] for rule in ALERTS}
    sources = [
        path.read_text() for name in ("api", "shared", "worker") for path in (ROOT / name).rglob("*.py")
    ]
    logged = set(re.findall(r'_log\.\w+\(\s*"(\w+)"', "".join(sources)))
    named = {alert: set(re.findall(r"`([a-z]+_[a-z_]+)`", row)) for alert, row in rows.items()}
    assert set().union(*named.values()) <= logged
    assert named["HistoQueueManyFail"] == {"job_failed"}
    assert named["HistoQueueWebhooksLate"] == {"webhook_sent", "webhooks_off"}
    # The first strike is only counted.
    assert MOST_STRIKES == 2
    assert "one that does it twice fails as `POISON`" in rows["HistoQueueEngineFailures"]


def test_there_is_an_alert_where_the_pages_say_so() -> None:
    """On webhooks that are not told, and on a worker whose own metrics nobody reads."""
    watched = {rule["alert"]: rule["expr"] for rule in ALERTS}
    assert "histoqueue_oldest_webhook_seconds >" in watched["HistoQueueWebhooksLate"]
    assert 'up{job="worker"} == 0' in watched["HistoQueueWorkerNotScraped"]
    assert "histoqueue_workers" in watched["HistoQueueWorkerNotScraped"]
    for name in ("docs/how-to/webhooks.md", "deploy/kubernetes/base/webhooks.yaml"):
        assert set(re.findall(r"HistoQueue[A-Z]\w+", (ROOT / name).read_text())) == {"HistoQueueWebhooksLate"}
    drawn = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert "max(histoqueue_oldest_webhook_seconds)" in drawn


def test_statuses_in_queries_are_a_jobs() -> None:
    """Those of answers are three digits."""
    for status in re.findall(r'jobs_ended_total\{status="(\w+)"', " ".join(QUERIES)):
        assert status in set(JobStatus)


def test_panels_do_not_overlap_and_name_the_provisioned_source() -> None:
    """Grafana would move or empty them."""
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == source["datasources"][0]["uid"]
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in own) < 24
        assert not own & cells
        cells |= own
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_the_scrape_asks_services_that_exist_where_they_tell() -> None:
    """At the ports that compose gives them, with the key that opens /metrics."""
    api, worker = SCRAPE["scrape_configs"]
    assert api["static_configs"] == [{"targets": ["api:5000"]}]
    assert api["authorization"] == {"credentials_file": "/run/monitoring/metrics_key"}
    (discovery,) = worker["dns_sd_configs"]
    assert set(discovery["names"]) == {"worker", "worker-gpu"} <= set(COMPOSE["services"])
    for name in discovery["names"]:
        address = COMPOSE["services"][name]["environment"]["WORKER_METRICS_ADDRESS"]
        assert address == f"0.0.0.0:{discovery['port']}"


@pytest.mark.parametrize("name", ["prometheus", "grafana", "flower"])
def test_who_looks_on_sees_no_servers_password(name: str) -> None:
    """They start on demand alone, listen on loopback, and name a version of their image."""
    service = COMPOSE["services"][name]
    assert service["profiles"] == ["monitoring"]
    mounted = {volume.split(":")[0] for volume in service["volumes"]}
    assert "monitoring" in mounted
    assert "passwords" not in mounted
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_flower_looks_at_our_queues() -> None:
    """Its configuration stands alone, because nothing of ours is in its image."""
    spec = importlib.util.spec_from_file_location("flower_config", FOLDER / "flower/celeryconfig.py")
    assert spec
    assert spec.loader
    config = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(config)
    assert config.task_default_queue == keys.INFERENCE_QUEUE
    assert {queue.name for queue in config.task_queues} == set(QUEUES.values())
    assert config.accept_content == ["json"]


@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=lambda command: command[1],
)
def test_promtool_accepts_it(command: tuple[str, ...]) -> None:
    """Prometheus' own checker, and what the rules say of made-up series."""
    if not shutil.which("promtool"):
        pytest.skip("promtool is not on this machine")
    done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
