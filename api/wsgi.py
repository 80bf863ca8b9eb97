"""The entry point of the HTTP server: `gunicorn -c python:api.gunicorn_conf api.wsgi:app`."""

import logging
import warnings

from api import create_app
from api.gunicorn_conf import threads
from shared.logs import configure_logs
from shared.object_store import REQUEST_PATIENCE
from shared.services import from_settings
from shared.settings import Settings, read_settings

settings = read_settings(Settings)
configure_logs(settings.log_level, settings.log_json)
# Like every line, they go through the log; but not Pillow's, of which a stranger's image may cause thousands.
logging.captureWarnings(True)
warnings.filterwarnings("ignore", module=r"PIL\.")
app = create_app(from_settings(settings, REQUEST_PATIENCE, connections=threads), settings)
