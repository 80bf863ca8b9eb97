"""HTTP in, HTTP out: stores an uploaded tile, records its job, enqueues it, and answers from the ledger."""

from flask import Flask

from api import batches, capacity, deliveries, health, jobs, models, openapi, web
from api.access import init_access
from api.body import UploadRequest
from api.context import init_context
from api.problems import init_problems
from api.request_log import init_request_log
from api.security_headers import init_security_headers
from shared.services import Services
from shared.settings import Settings

#: What a multipart body may have beside its image: boundaries, part headers and the options.
FRAME_BYTES = 65_536
#: One text field; Werkzeug also fills its parse buffer up to this, in steps of 64 KiB.
MAX_FIELD_BYTES = 200_000
#: One image and the options, with room for a few that are yet to come.
MAX_PARTS = 16


def create_app(services: Services, settings: Settings) -> Flask:
    """Return the WSGI application over these services."""
    # Here and not above: the server's main process imports this package before it has said where its
    # processes count together.
    from api import metrics  # noqa: PLC0415

    app = Flask("api", static_folder=None)
    app.request_class = UploadRequest
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_image_bytes + FRAME_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_FIELD_BYTES,
        MAX_FORM_PARTS=MAX_PARTS,
    )
    # A path is what the client sent: `/result//x` is an unknown job, not a redirect.
    app.url_map.merge_slashes = False
    app.url_map.converters |= {"any_text": jobs.AnyText, "any_id": jobs.AnyId}
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it

    init_context(app, services, settings)
    init_request_log(app)
    init_security_headers(app)
    init_problems(app)
    init_access(app)
    metrics.init_metrics(app)
    app.register_blueprint(web.bp)
    app.register_blueprint(jobs.bp)
    app.register_blueprint(deliveries.bp)
    app.register_blueprint(batches.bp)
    app.register_blueprint(models.bp)
    app.register_blueprint(capacity.bp)
    app.register_blueprint(health.bp)
    app.register_blueprint(metrics.bp)
    app.register_blueprint(openapi.bp)
    return app
