"""The entry point of the HTTP server: `gunicorn -c python:api.gunicorn_conf api.wsgi:app`."""

import logging

from api import create_app
from api.gunicorn_conf import threads
from shared.logs import configure_logs
from shared.object_store import REQUEST_PATIENCE
from shared.services import from_settings
from shared.settings import Settings, read_settings

settings = read_settings(Settings)
configure_logs(settings.log_level, settings.log_json)
# Pillow warns about odd headers; like every line, that goes through the log.
logging.captureWarnings(True)
app = create_app(from_settings(settings, REQUEST_PATIENCE, connections=threads), settings)
