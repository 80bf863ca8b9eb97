"""Every metric: its name, what it means, its labels and buckets."""

from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

#: Of one process; those of an API server are put together at /metrics.
REGISTRY = CollectorRegistry()
_log = structlog.stdlib.get_logger("shared.metrics")

# --- the API ---
REQUESTS = Counter(
    "histoqueue_http_requests",
    "Requests answered; `route` is the rule and never what the caller wrote.",
    ("route", "method", "status"),
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "histoqueue_http_request_seconds",
    "Seconds from a request's head to the head of its answer, waiting for a job included.",
    ("route",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)

CACHED_ANSWERS = Counter(
    "histoqueue_cached_answers",
    "Submissions that were answered at once, with the result of an earlier job for the same image.",
    registry=REGISTRY,
)

# --- a worker ---
ATTEMPTS = Counter(
    "histoqueue_worker_attempts",
    "Jobs that this worker took up, by what it made of them: succeeded, failed, released, dropped.",
    ("outcome",),
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "histoqueue_worker_stage_seconds",
    "Seconds of each stage of a job, as in its `timings_ms`.",
    ("stage",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
BATCH_SIZE = Histogram(
    "histoqueue_worker_batch_size",
    "Images in a micro-batch that the engine was given.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
    registry=REGISTRY,
)
ETA_ERROR_SECONDS = Histogram(
    "histoqueue_worker_eta_error_seconds",
    "Seconds by which a job ended later than its client was told; below 0: earlier.",
    buckets=(-60, -30, -10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 30, 60),
    registry=REGISTRY,
)
ENGINE_FAILURES = Counter(
    "histoqueue_worker_engine_failures",
    "Times that the engine died or hung with a job alone in it.",
    registry=REGISTRY,
)


@dataclass(frozen=True)
class LedgerMetric:
    """One that is read from the ledger when it is asked for, alike from every server."""

    name: str
    kind: str
    help: str
    label: str | None = None


LEDGER = (
    LedgerMetric("histoqueue_ledger_up", "gauge", "1 where Redis answered; else the rest is missing."),
    LedgerMetric(
        "histoqueue_jobs_accepted",
        "counter",
        "Jobs accepted since the ledger began; accepted + retried = open + ended, at any moment.",
    ),
    LedgerMetric("histoqueue_jobs_retried", "counter", "Ended jobs that were queued once more."),
    LedgerMetric("histoqueue_jobs_ended", "counter", "Times that a job came to a final status.", "status"),
    LedgerMetric("histoqueue_jobs_open", "gauge", "Jobs that are not final."),
    LedgerMetric("histoqueue_jobs_running", "gauge", "Of these, the ones that a worker holds."),
    LedgerMetric("histoqueue_jobs_limit", "gauge", "Open jobs that are admitted."),
    LedgerMetric("histoqueue_jobs_waiting", "gauge", "Jobs whose message no worker has taken.", "priority"),
    LedgerMetric("histoqueue_oldest_waiting_seconds", "gauge", "Age of the oldest message; 0 for none."),
    LedgerMetric("histoqueue_drain_rate", "gauge", "Jobs that ended per second, over the last minute."),
    LedgerMetric(
        "histoqueue_drain_rate_by_priority", "gauge", "The same for the jobs of each priority.", "priority"
    ),
    LedgerMetric("histoqueue_ledger_memory_share", "gauge", "Memory in use of what Redis may use, 0 to 1."),
    LedgerMetric("histoqueue_webhooks_pending", "gauge", "Events that webhooks are yet to be told."),
    LedgerMetric(
        "histoqueue_oldest_webhook_seconds",
        "gauge",
        "Time since the oldest of them, or its redelivery; 0 for none.",
    ),
    LedgerMetric(
        "histoqueue_webhooks_ended",
        "counter",
        "Deliveries by their end: delivered, failed, disabled.",
        "outcome",
    ),
    LedgerMetric(
        "histoqueue_webhook_attempts",
        "counter",
        "Attempts by their answer: accepted (2xx), refused.",
        "outcome",
    ),
    LedgerMetric("histoqueue_workers", "gauge", "Workers that reported within the last ten seconds."),
)


def serve(address: str | None) -> None:
    """Tell this process' metrics at `host:port`, from a thread; None is nowhere.

    An address that is taken is no reason not to work: it is logged.
    """
    if address is None:
        return
    host, _, port = address.rpartition(":")
    try:
        start_http_server(int(port), host, registry=REGISTRY)
    except (OSError, OverflowError) as error:
        _log.error("metrics_not_served", address=address, error=str(error))
