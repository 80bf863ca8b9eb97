"""Routes: which model versions there are, and what is known about each."""

from typing import Any

from flask import Blueprint, Response, url_for

from api.context import context
from api.problems import problem_answer
from shared.errors import UnknownModelVersion
from shared.manifest import CARD_NAME, Manifest
from shared.representation import NOTICE

bp = Blueprint("models", __name__)


@bp.errorhandler(UnknownModelVersion)
def _no_such_version(error: UnknownModelVersion) -> Response:
    """Answer 404: here the version is what was asked for, and not an option of the request."""
    return problem_answer(error.code, error.detail, status=404)


@bp.get("/models")
def versions() -> dict[str, Any]:
    """List every published version, newest first, with its classes, input and measured figures."""
    registry = context().services.models
    live = registry.live()
    manifests = [registry.manifest(version) for version in reversed(registry.versions())]
    return {
        "notice": NOTICE,
        "name": live.name,
        "live": live.version,
        "versions": [_describe(manifest, live.version) for manifest in manifests],
    }


@bp.get("/models/<version>")
def version(version: str) -> dict[str, Any]:
    """Describe one version."""
    registry = context().services.models
    return {"notice": NOTICE, **_describe(registry.manifest(version), registry.live().version)}


@bp.get("/models/<version>/card")
def card(version: str) -> Response:
    """Return the version's model card, as Markdown."""
    registry = context().services.models
    if not _has_card(registry.manifest(version)):
        raise UnknownModelVersion(f"Expected a version with a model card. {version} has none.")
    answer = Response(registry.read(version, CARD_NAME), content_type="text/markdown; charset=utf-8")
    answer.headers["X-HistoQueue-Notice"] = NOTICE
    return answer


def _describe(manifest: Manifest, live: str) -> dict[str, Any]:
    version = manifest.version
    return {
        "name": manifest.name,
        "version": version,
        "live": version == live,
        "sha256": manifest.digest_of(manifest.weights).sha256,
        "created_at": manifest.created_at,
        "intended_use": manifest.intended_use,
        "licence": manifest.licence,
        "classes": [item.model_dump() for item in manifest.classes],
        "input": manifest.input.model_dump(),
        "indeterminate_below": manifest.indeterminate_below,
        "metrics": manifest.metrics,
        "links": {
            "self": url_for("models.version", version=version),
            "card": url_for("models.card", version=version) if _has_card(manifest) else None,
        },
    }


def _has_card(manifest: Manifest) -> bool:
    return any(file.name == CARD_NAME for file in manifest.files)
