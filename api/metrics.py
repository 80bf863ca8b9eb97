"""Route: what Prometheus reads, from all processes of this server and from the ledger."""

import os
import time
from collections.abc import Iterator

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.context import Context, context
from shared.errors import JobStoreUnavailable
from shared.metrics import LEDGER, REGISTRY, REQUEST_SECONDS, REQUESTS
from shared.schemas import wall_clock_ms

bp = Blueprint("metrics", __name__)
_Readings = dict[str, float | dict[str, float]]


def init_metrics(app: Flask) -> None:
    """Count the requests of this application."""
    app.after_request(_count)


@bp.get("/metrics")
def show() -> Response:
    """Return every metric; where Redis is away, only those that need none."""
    ledger = CollectorRegistry()
    ledger.register(_Ledger(context()))
    body = generate_latest(_of_this_server()) + generate_latest(ledger)
    return Response(body, content_type=CONTENT_TYPE_LATEST)


def _of_this_server() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return together


def _count(response: Response) -> Response:
    route = request.url_rule.rule if request.url_rule else "none"
    # A method is the caller's word until a route has taken it.
    method = request.method if request.url_rule else "any"
    REQUESTS.labels(route, method, response.status_code).inc()
    REQUEST_SECONDS.labels(route).observe(time.monotonic() - g.began_at)
    return response


class _Ledger(Collector):
    """The metrics of `shared.metrics.LEDGER`, read now."""

    def __init__(self, here: Context) -> None:
        self._here = here

    def collect(self) -> Iterator[Metric]:
        """Yield those that could be read."""
        try:
            readings = {"histoqueue_ledger_up": 1.0, **_read(self._here)}
        except JobStoreUnavailable:
            readings = {"histoqueue_ledger_up": 0.0}
        for metric in LEDGER:
            if metric.name not in readings:
                continue
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=[metric.label] if metric.label else [])
            value = readings[metric.name]
            for label, number in value.items() if isinstance(value, dict) else [(None, value)]:
                family.add_metric([label] if label else [], number)
            yield family


def _read(here: Context) -> _Readings:
    jobs = here.services.jobs
    totals, depth = jobs.totals(), jobs.depth()
    webhooks = here.services.deliveries.totals()
    return {
        "histoqueue_jobs_accepted": totals.accepted,
        "histoqueue_jobs_retried": totals.retried,
        "histoqueue_jobs_ended": {status.value: number for status, number in totals.ended.items()},
        "histoqueue_jobs_open": totals.open,
        "histoqueue_jobs_running": depth.running,
        "histoqueue_jobs_limit": here.settings.max_open_jobs,
        "histoqueue_jobs_waiting": {name.value: item.queued for name, item in depth.waiting.items()},
        "histoqueue_oldest_waiting_seconds": _age(depth.oldest_published_at_ms),
        "histoqueue_drain_rate": jobs.drain_rate(),
        "histoqueue_drain_rate_by_priority": {name.value: jobs.drain_rate(name) for name in depth.waiting},
        "histoqueue_ledger_memory_share": jobs.memory_share(),
        "histoqueue_webhooks_pending": webhooks.pending,
        "histoqueue_oldest_webhook_seconds": _age(webhooks.oldest_pending_at_ms),
        "histoqueue_webhooks_ended": dict(webhooks.ended),
        "histoqueue_webhook_attempts": dict(webhooks.attempts),
        "histoqueue_workers": len(here.services.workers.live()),
    }


def _age(time_ms: int | None) -> float:
    return max(0.0, (wall_clock_ms() - time_ms) / 1000) if time_ms else 0.0
