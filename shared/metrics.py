"""What an API server and the ledger tell: each metric's name, what it means, its labels and buckets."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

#: Of one process; those of an API server are put together at /metrics.
REGISTRY = CollectorRegistry()

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
    LedgerMetric("histoqueue_jobs_running", "gauge", "Of these, those that a worker holds or handed back."),
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
