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
#: A page's scripts and requests are this server's own; styles and images may come from what it adds, too.
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self' {images}; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_POLICIES = {
    # It shows images that it has read or been given.
    "web.index": _PAGE.format(styles="", images="blob:"),
    # The viewer of the contract sets styles on elements, and draws icons from data URLs.
    "openapi.docs": _PAGE.format(styles=" 'unsafe-inline'", images="data:"),
}


def init_security_headers(app: Flask) -> None:
    """Put them on every answer of this application, problems included."""
    app.after_request(_add)


def _add(response: Response) -> Response:
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
    policy = _POLICIES.get(request.endpoint or "", _NOTHING) if response.mimetype == "text/html" else _NOTHING
    response.headers.setdefault("Content-Security-Policy", policy)
    return response
