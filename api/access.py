"""Who asks, and may they: API keys, checked before anything of a request's body is read."""

import ipaddress
import re
import secrets

import structlog
from flask import Flask, g, request

from api.context import context
from shared.api_keys import ApiKey, KeyStore, Scope
from shared.errors import Forbidden, NotAuthenticated, ObjectStoreUnavailable
from shared.settings import Settings

#: What needs no key: whether the server is well, and how it is used.
PUBLIC = frozenset(
    {"web.index", "web.asset", "health.live", "health.ready"}
    | {"openapi.document", "openapi.docs", "openapi.errors", "openapi.asset"}
)
#: What a key must allow; a route that is not here needs an admin's.
SCOPES = {
    "jobs.predict": Scope.SUBMIT,
    "jobs.cancel": Scope.SUBMIT,
    "jobs.retry": Scope.SUBMIT,
    "jobs.delete": Scope.SUBMIT,
    "batches.submit": Scope.SUBMIT,
    "batches.cancel": Scope.SUBMIT,
    "batches.retry": Scope.SUBMIT,
    "batches.show": Scope.READ,
    "batches.results": Scope.READ,
    "jobs.result": Scope.READ,
    "jobs.events": Scope.READ,
    "jobs.heatmap": Scope.READ,
    "deliveries.show": Scope.READ,
    "deliveries.redeliver": Scope.SUBMIT,
    "deliveries.show_batch": Scope.READ,
    "deliveries.redeliver_batch": Scope.SUBMIT,
    "models.versions": Scope.READ,
    "models.version": Scope.READ,
    "models.card": Scope.READ,
    "capacity.capacity": Scope.READ,
    "metrics.show": Scope.READ,
}
#: What a proxy adds to a request that it hands on; one of them is enough to know that there is one.
_OF_PROXIES = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "Via")
_log = structlog.stdlib.get_logger("api.access")


def init_access(app: Flask) -> None:
    """Ask every request of this application for its key."""
    app.before_request(_check)


def caller() -> ApiKey | None:
    """Return the key of the present request; None where the installation has none, and all may do all."""
    key: ApiKey | None = g.caller
    return key


def owner() -> str | None:
    """Return whose what the present request makes is: an id of a key; None where there are no keys."""
    key = caller()
    return key.id if key else None


def _check() -> None:
    g.caller = None
    endpoint = request.endpoint
    if endpoint is None or endpoint in PUBLIC:
        return
    if endpoint == "metrics.show" and _has_metrics_key(context().settings):
        return
    ring = context().keys.ring()
    if ring.is_empty and _is_local_request():
        _refuse_strangers()
        return
    text = _presented()
    key = ring.find(text) if text else None
    if key is None:
        expected = "Expected an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
        raise NotAuthenticated(f"{expected} Received: {'one that opens nothing' if text else 'none'}")
    scope = SCOPES.get(endpoint, Scope.ADMIN)
    if not key.allows(scope):
        raise Forbidden(
            f"Expected a key with the scope {scope}. This one has: {', '.join(sorted(key.scopes))}"
        )
    # The id is no secret; the key itself is never logged.
    structlog.contextvars.bind_contextvars(key_id=key.id)
    g.caller = key
    context().services.rates.count(key.id, context().settings.max_requests_per_minute)


def _is_local_request() -> bool:
    # By the socket's two ends, and never by a header: behind a socket file both are unknown.
    ends = (request.environ.get("SERVER_NAME", ""), request.remote_addr or "")
    return all(is_local(end, context().settings) for end in ends)


def _refuse_strangers() -> None:
    """Return if whoever asks is on this machine, and no page has its browser ask.

    Raises:
        Forbidden: if a proxy asks for another, or a browser for a page of another site, or for one whose own
            name leads here.
    """
    through = next((name for name in _OF_PROXIES if name in request.headers), None)
    if through:
        raise Forbidden(
            "Expected an API key, or a request of this machine's own: this one came through a proxy. "
            f"Received: the header {through}"
        )
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    if not _names_loopback(host):
        raise Forbidden(
            "Expected localhost, or another loopback address, in the header Host: without an API key only "
            f"this machine may ask. Received: {host[:80]!r}"
        )
    is_foreign = origin is not None and origin.lower().partition("://")[2] != host.lower()
    if is_foreign or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise Forbidden(
            "Expected no request of another site's page: without an API key only this machine may ask."
        )


def _names_loopback(host: str) -> bool:
    """Tell whether a Host header, with or without a port, is a name of this machine for itself alone."""
    return _is_loopback(re.sub(r":[0-9]*\Z", "", host).lower())


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _has_metrics_key(settings: Settings) -> bool:
    expected = settings.metrics_key
    given = (_presented() or "").encode()
    return expected is not None and secrets.compare_digest(given, expected.get_secret_value().encode())


def _presented() -> str | None:
    given = request.authorization
    if given is not None and given.type == "bearer" and given.token:
        return given.token
    return request.headers.get("X-API-Key")


def is_local(host: str, settings: Settings) -> bool:
    """Tell whether a server that is bound to this host is reached from its own machine alone."""
    return settings.loopback_only or _is_loopback(host)


def refuse_open_door(hosts: list[str], settings: Settings, store: KeyStore) -> None:
    """End the program where everybody in the network could use it.

    A store that is away is no reason to: requests are refused until the keys are read.

    Raises:
        SystemExit: if there is no key, and a host of these is reached from elsewhere.
    """
    strange = [host for host in hosts if not is_local(host, settings)]
    try:
        if not strange or not store.read().is_empty:
            return
    except ObjectStoreUnavailable:
        _log.warning("keys_not_read", kept=0)
        return
    raise SystemExit(
        f"error: bound to {strange[0]} without an API key, everybody who reaches it could use it. Make one "
        "with `python -m ops.keys create --name NAME`, or bind to 127.0.0.1; set LOOPBACK_ONLY=true only "
        "where something else, such as a published port, keeps it to this machine."
    )
