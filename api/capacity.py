"""Route: how much work is open, and how fast it goes."""

from typing import Any

from flask import Blueprint

from api.context import context
from shared.schemas import wall_clock_ms

bp = Blueprint("capacity", __name__)


@bp.get("/capacity")
def capacity() -> dict[str, Any]:
    """Return the open jobs, the limits, the workers, and how fast jobs ended in the last minute."""
    here = context()
    depth = here.services.jobs.depth()
    return {
        "open": depth.open,
        "queued": depth.open - depth.running,
        "running": depth.running,
        "limit": here.settings.max_open_jobs,
        "oldest_waiting_seconds": _age_seconds(depth.oldest_published_at_ms),
        "drain_rate_per_second": round(here.services.jobs.drain_rate(), 3),
        "priorities": {
            priority.value: {
                "queued": waiting.queued,
                "oldest_waiting_seconds": _age_seconds(waiting.oldest_published_at_ms),
                "drain_rate_per_second": round(here.services.jobs.drain_rate(priority), 3),
            }
            for priority, waiting in depth.waiting.items()
        },
        "memory_share": round(here.services.jobs.memory_share(), 4),
        "workers": [
            {"name": worker.name, "model": f"{worker.model_name} {worker.model_version}"}
            for worker in here.services.workers.live()
        ],
    }


def _age_seconds(since_ms: int | None) -> float | None:
    return None if since_ms is None else max(0.0, (wall_clock_ms() - since_ms) / 1000)
