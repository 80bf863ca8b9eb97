"""What a browser may do with an answer: nothing, except on the pages that are meant for it."""

from flask import Flask, Response, request

#: Data: not to be run, framed, sniffed for another type, or read by a page from elsewhere.
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
#: A page's scripts and requests are this server's own; it shows images that it has read or been given.
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: The viewer of the contract sets styles on elements, too, and draws icons from data URLs.
_VIEWER = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_POLICIES = {"web.index": _PAGE, "openapi.docs": _VIEWER}


def init_security_headers(app: Flask) -> None:
    """Put them on every answer of this application, problems included."""
    app.after_request(_add)


def _add(response: Response) -> Response:
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
    policy = _POLICIES.get(request.endpoint or "", _NOTHING) if response.mimetype == "text/html" else _NOTHING
    response.headers.setdefault("Content-Security-Policy", policy)
    return response
