"""How long a request is willing to wait for its job, by RFC 7240's `Prefer` or by `?wait=`."""

import re
from dataclasses import dataclass

from flask import Request
from werkzeug.http import parse_list_header, unquote_header_value

from api.events import LONGEST_WAIT_SECONDS
from shared.errors import InvalidRequest


@dataclass(frozen=True)
class Wait:
    """A wish to wait; 0 seconds is none."""

    seconds: float = 0
    #: It came as a preference, whose fulfilment the answer states.
    preferred: bool = False


def preferred_wait(request: Request) -> Wait:
    """Read `Prefer: wait=n`; what is malformed there is ignored, as RFC 7240 asks for."""
    for preference in parse_list_header(request.headers.get("Prefer", "")):
        # Parameters of a preference follow a semicolon; `wait` has none.
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            # Only the first of several counts.
            text = unquote_header_value(value.strip())
            if re.fullmatch(r"[0-9]{1,9}", text):
                return Wait(min(int(text), LONGEST_WAIT_SECONDS), preferred=True)
            break
    return Wait()


def wanted_wait(request: Request) -> Wait:
    """Read `?wait=n`, or else the preference.

    Raises:
        InvalidRequest: if the query's value is no number of seconds.
    """
    text = request.args.get("wait")
    if text is None:
        return preferred_wait(request)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text):
        raise InvalidRequest(f"Expected wait to be a number of seconds, 0 or more. Received: {text[:40]!r}")
    return Wait(min(float(text), LONGEST_WAIT_SECONDS))
