"""Route: what stands at the root of the server."""

from typing import Any

from flask import Blueprint, url_for

from api.context import NOTICE

bp = Blueprint("index", __name__)


@bp.get("/")
def show() -> dict[str, Any]:
    """Name the service and the routes to begin with."""
    return {
        "name": "HistoQueue",
        "notice": NOTICE,
        "links": {
            "predict": url_for("jobs.predict"),
            "models": url_for("models.versions"),
            "capacity": url_for("capacity.capacity"),
            "metrics": url_for("metrics.show"),
            "contract": url_for("openapi.document"),
            "docs": url_for("openapi.docs"),
            "live": url_for("health.live"),
            "ready": url_for("health.ready"),
        },
    }
