"""What a view may use of its application."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flask import Flask, current_app

from api.events import WaitingRoom
from api.key_cache import KeyCache
from shared.api_keys import KeyStore
from shared.services import Services
from shared.settings import Settings

_NAME = "histoqueue"


@dataclass(frozen=True)
class Context:
    """The outside things of one application, its settings, and what its requests share."""

    services: Services
    settings: Settings
    waiting: WaitingRoom
    keys: KeyCache
    #: Runs the readiness checks: one that hangs holds a thread of these, and never a request's.
    checkers: ThreadPoolExecutor
    #: Readiness check -> why it failed when last asked, as it was logged.
    failing: dict[str, str | None] = field(default_factory=dict)


def init_context(app: Flask, services: Services, settings: Settings) -> None:
    """Give the application its context."""
    app.extensions[_NAME] = Context(
        services=services,
        settings=settings,
        waiting=WaitingRoom(services.jobs, settings.max_waiters),
        keys=KeyCache(KeyStore(services.objects)),
        checkers=ThreadPoolExecutor(max_workers=8, thread_name_prefix="readiness"),
    )


def context(app: Flask | None = None) -> Context:
    """Return the context of this application, by default of the one that serves the present request."""
    found: Context = (app or current_app).extensions[_NAME]
    return found
