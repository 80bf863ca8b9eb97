"""What a worker tells of itself: each metric's name, what it means, its labels and buckets."""

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

REGISTRY = CollectorRegistry()
_log = structlog.get_logger(__name__)

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
