"""Is the server there, does it speak this client's language, are the clocks right, what are its limits."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import NamedTuple

import httpx2

from . import _flows as flows
from ._client import Client
from ._errors import HistoQueueError, NotReady, NotSupported
from ._http import Answer, http_date
from ._version import VERSION

#: `Date` has whole seconds, and an answer takes its time.
_CLOCK_SECONDS = 5.0


class Finding(NamedTuple):
    """One thing that was looked at; `is_well` is None where the server does not tell."""

    what: str
    is_well: bool | None
    text: str


def examine(client: Client) -> Iterator[Finding]:
    """Yield what is found, each as soon as it is known."""
    yield Finding(
        "client", True, f"histoqueue {VERSION}, Python {platform.python_version()} on {sys.platform}"
    )
    yield Finding("library", True, f"httpx2 {httpx2.__version__}")
    began = time.monotonic()
    try:
        answer = client.run(flows.look_at("/healthz", client.patience))
        answer.json()  # else it is something else that answers
    except HistoQueueError as error:
        yield Finding("server", False, f"{client.connection.shown}: {error}")
        return
    milliseconds = (time.monotonic() - began) * 1000
    yield Finding("server", True, f"{client.connection.shown} answers in {milliseconds:.0f} ms")
    yield _clock(answer)
    yield _ready(client)
    yield _told(client, "version", "/openapi.json", _version)
    yield _told(client, "model", "/models", lambda found: str(found.get("live") or "none live"))
    yield _told(client, "limits", "/capacity", _limits)


def _clock(answer: Answer) -> Finding:
    theirs = http_date(answer.headers.get("Date", ""))
    if theirs is None:
        return Finding("clock", None, "the server does not tell its time")
    skew = (datetime.now(timezone.utc) - theirs).total_seconds()
    text = f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server"
    return Finding("clock", abs(skew) <= _CLOCK_SECONDS, text)


def _ready(client: Client) -> Finding:
    try:
        checks = client.ready().get("checks") or {}
    except NotReady as error:
        return Finding("ready", False, str(error))
    except HistoQueueError as error:
        return Finding("ready", False, f"cannot be told: {error}")
    return Finding("ready", True, ", ".join(sorted(checks)) or "yes")


def _told(client: Client, what: str, path: str, text: Callable[[dict[str, object]], str]) -> Finding:
    try:
        found = client.run(flows.supported(flows.look_at(path, client.patience), f"GET {path}")).json()
    except NotSupported:
        return Finding(what, None, f"the server does not tell (it has no {path})")
    except HistoQueueError as error:
        return Finding(what, False, str(error))
    return Finding(what, True, text(found))


def _version(document: dict[str, object]) -> str:
    info = document.get("info")
    return f"server {info.get('version')}" if isinstance(info, dict) else "the server does not tell"


def _limits(found: dict[str, object]) -> str:
    workers = found.get("workers")
    number = len(workers) if isinstance(workers, list) else "?"
    return f"{found.get('open', '?')} of at most {found.get('limit', '?')} jobs open, {number} workers"
