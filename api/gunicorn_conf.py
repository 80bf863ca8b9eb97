"""How gunicorn serves the API: `gunicorn -c python:api.gunicorn_conf --bind 127.0.0.1:8080 api.wsgi:app`."""

import os
from typing import Any

from api.metrics_folder import MetricsFolder

#: Threads because requests wait: for a store, or, parked by `?wait=`, for a job.
worker_class = "api.gunicorn_worker.BoundedThreadWorker"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
if workers == 0:
    # gunicorn refuses every other number below 1, and with this one listens and answers nobody.
    raise SystemExit("error: WEB_CONCURRENCY: expected 1 process or more. Received: 0")
threads = 256
#: Over the number of threads, so that kept-alive and waiting connections are accepted and not reset.
worker_connections = 1000
backlog = 1024

#: The worker's main loop answers the master this often, or is replaced; requests have bounds of their own.
timeout = 30
graceful_timeout = 5
#: Longer than what stands before the API keeps one idle, 60 s with nginx and AWS's balancers: who closes
#: first is sent no request, and a proxy whose request meets a closed connection answers 502.
keepalive = 75

#: Where the application is mounted is said by the variable SCRIPT_NAME: a header may be any client's.
forwarder_headers = ""

limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190

#: The application logs each request itself, with its id and without what the caller wrote.
accesslog = None
#: Nothing of ours speaks to it, and it would leave a socket file behind.
control_socket_disable = True
_METRICS = MetricsFolder()


def on_starting(server: Any) -> None:
    """Refuse to begin where everybody in the network could use it; say where the processes count together."""
    _METRICS.begin()
    from api.access import refuse_open_door  # noqa: PLC0415 - as below
    from shared.api_keys import KeyStore  # noqa: PLC0415
    from shared.object_store import REQUEST_PATIENCE  # noqa: PLC0415
    from shared.services import from_settings  # noqa: PLC0415
    from shared.settings import Settings, read_settings  # noqa: PLC0415

    # A socket file, or one that was handed over, may be served to anybody by what stands before it.
    hosts = [address[0] if isinstance(address, tuple) else str(address) for address in server.cfg.address]
    settings = read_settings(Settings)
    try:
        refuse_open_door(hosts, settings, KeyStore(from_settings(settings, REQUEST_PATIENCE).objects))
    except SystemExit:
        _METRICS.end()
        raise


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - a hook's form
    """Take a process that ended out of the present figures; what it counted stays."""
    _METRICS.forget(worker.pid)


def on_exit(server: Any) -> None:  # noqa: ARG001 - a hook's form
    """Leave nothing behind."""
    _METRICS.end()


def post_worker_init(worker: Any) -> None:
    """Let parked requests be answered as soon as the worker is told to stop."""
    from api.context import context  # noqa: PLC0415 - the master reads this file and needs no application

    context(worker.wsgi).waiting.stop_when(lambda: not worker.alive)
