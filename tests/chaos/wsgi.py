"""The real API, which may be told where to die."""

from api.wsgi import app
from tests.chaos.crashing import arm_from_environment

__all__ = ["app"]

arm_from_environment()
