"""`python -m worker.webhooks`: tells webhooks how jobs ended; a role beside the inference workers."""

import argparse
import re
import socket
import threading
from typing import Any

import structlog
from celery import Celery, signals
from celery.exceptions import Reject

from shared.deliveries import Taken
from shared.logs import configure_logs
from shared.object_store import WORKER_PATIENCE
from shared.services import from_settings
from shared.settings import Settings, read_settings
from shared.webhook_queue import DELIVER_TASK, CeleryWebhookQueue, make_webhook_celery
from worker.consumer import consume
from worker.routine import Routine
from worker.webhook_delivery import Deliverer

#: How often it looks for deliveries whose time has come.
DISPATCH_EVERY_SECONDS = 0.5
#: What a message may name; anything else is not ours.
_ID = re.compile(r"[0-9A-Za-z_-]{1,120}")
_log = structlog.get_logger(__name__)


def make_app(settings: Settings) -> Celery:
    """Return the Celery application with its one task, its dispatcher and its hooks."""
    app = make_webhook_celery(settings)
    queue = CeleryWebhookQueue(app)
    deliverer = Deliverer(from_settings(settings, WORKER_PATIENCE).deliveries, settings, queue.enqueue)
    dispatcher = Routine("dispatcher", DISPATCH_EVERY_SECONDS, deliverer.dispatch)
    draining = threading.Event()

    @app.task(name=DELIVER_TASK)
    def deliver(delivery_id: str, host: str) -> None:
        if draining.is_set():
            raise Reject("the process is shutting down", requeue=True)
        if not _ID.fullmatch(delivery_id):
            _log.error("message_refused", reason="no delivery id")
            return
        deliverer.run(Taken(delivery_id, host), draining.is_set)

    def set_up_logs(**_: Any) -> None:
        configure_logs(settings.log_level, settings.log_json)

    def begin(**_: Any) -> None:
        if not settings.webhook_secrets:
            _log.warning("webhooks_off", reason="WEBHOOK_SECRET is not set")
        dispatcher.start()

    def drain(**_: Any) -> None:
        draining.set()
        dispatcher.stop()

    for signal, handler in (
        (signals.setup_logging, set_up_logs),
        (signals.worker_ready, _once(begin)),
        (signals.worker_shutting_down, drain),
    ):
        signal.connect(handler, weak=False)
    return app


def _once(handler: Any) -> Any:
    """Return a handler of a signal that is sent again after each reconnection."""
    called = threading.Event()

    def handle(**arguments: Any) -> None:
        if not called.is_set():
            called.set()
            handler(**arguments)

    return handle


def main() -> None:
    """Deliver until SIGTERM; then finish what is being sent, and end."""
    argparse.ArgumentParser(prog="python -m worker.webhooks", description=__doc__).parse_args()
    settings = read_settings(Settings)
    configure_logs(settings.log_level, settings.log_json)
    # Threads only wait for the network.
    consume(
        make_app(settings), f"webhooks-{socket.gethostname()}", settings.webhook_threads, settings.log_level
    )


if __name__ == "__main__":
    main()
