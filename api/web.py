"""Routes: the web page at the root of the server, a client of the public API, and its assets."""

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, make_response, render_template, request, send_from_directory, url_for

from shared.representation import NOTICE

bp = Blueprint("web", __name__, template_folder="templates")
_ASSETS = Path(__file__).with_name("static")


@bp.get("/")
def index() -> Response:
    """Show the page to a browser; to anything else, name the service and the routes to begin with."""
    # A program that accepts anything gets JSON; a browser names HTML.
    wants_page = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    answer = make_response(render_template("page.html", notice=NOTICE) if wants_page else _links())
    answer.headers["Vary"] = "Accept"
    if wants_page:
        # Else its form would be sent by nobody (`Origin: null`), and refused as one of another site.
        answer.headers["Referrer-Policy"] = "same-origin"
    return answer


@bp.get("/static/<path:name>")
def asset(name: str) -> Response:
    """Return a script, a style or a picture of the page."""
    return send_from_directory(_ASSETS, name)


def _links() -> dict[str, Any]:
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
