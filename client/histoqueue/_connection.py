"""Where a server is, and how one request of ours becomes one of httpx2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict
from urllib.parse import urljoin, urlsplit

import httpx2

from . import _environment
from ._errors import UnexpectedAnswer
from ._http import ANSWER_SECONDS, Answer, FormFile, Request, Unanswered
from ._version import VERSION

CONNECT_SECONDS = 5.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Arguments(TypedDict):
    """What `httpx2.Client.request` is called with."""

    method: str
    url: str
    params: Mapping[str, str] | None
    headers: Mapping[str, str]
    content: bytes | None
    files: Sequence[tuple[str, FormFile]] | None
    timeout: httpx2.Timeout


@dataclass(frozen=True)
class Connection:
    """The address of a server and what every request to it carries."""

    base_url: str = field(repr=False)
    #: Not shown: they hold the API key.
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def to(cls, base_url: str | None, api_key: str | None) -> Connection:
        """Return the connection to a server, by default to the one that the environment names.

        Raises:
            ValueError: if the address is none, or the key cannot be sent.
        """
        url = (base_url or _environment.server_url()).strip().rstrip("/")
        if not _is_address(url):
            raise ValueError(f"Expected an address such as http://127.0.0.1:5000. Received: {url!r}")
        # A file or a clipboard adds a line's end.
        key = (api_key or _environment.api_key() or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError("Expected an API key of printable ASCII characters. Received one with others.")
        headers = {"User-Agent": f"histoqueue/{VERSION}", "Accept": "application/json, */*;q=0.5"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return cls(url, headers)

    @property
    def shown(self) -> str:
        """The address without the name and the password that it may hold, as for a proxy in front."""
        parts = urlsplit(self.base_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def trust_env(self) -> bool:
        """Whether proxies of the environment apply; never to a server on this machine."""
        return urlsplit(self.base_url).hostname not in _LOOPBACK

    def arguments(self, request: Request) -> Arguments:
        """Return what to call httpx2 with."""
        return {
            "method": request.method,
            "url": self.url(request.path),
            "params": request.query or None,
            "headers": {**self.headers, **request.headers},
            "content": request.body,
            "files": [("file", file) for file in request.files] or None,
            "timeout": httpx2.Timeout(
                ANSWER_SECONDS + request.wait_seconds, connect=CONNECT_SECONDS, pool=None
            ),
        }

    def url(self, path: str) -> str:
        """Return the address of a path or link.

        Raises:
            UnexpectedAnswer: if a link leads to another server, which must not see the API key.
        """
        if path.startswith("/") and not path.startswith("//"):
            prefix = urlsplit(self.base_url).path
            # A server that knows its prefix has it in its links.
            return self.base_url + (path[len(prefix) :] if prefix and path.startswith(prefix + "/") else path)
        url = urljoin(self.base_url + "/", path)
        if urlsplit(url)[:2] != urlsplit(self.base_url)[:2]:
            raise UnexpectedAnswer(f"Expected a link on {self.shown}. Received: {path}")
        return url


def _is_address(url: str) -> bool:
    try:
        return httpx2.URL(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except (ValueError, httpx2.InvalidURL):
        return False


def answer_of(response: httpx2.Response) -> Answer | Unanswered:
    """Return a response as a value."""
    if response.has_redirect_location:
        is_lasting = response.status_code in (301, 308)
        # Without what a login page is told in its address.
        address = response.headers["Location"].partition("#")[0].partition("?")[0]
        advice = (
            "; use that as its address" if is_lasting else ", as a network or a proxy does that wants a login"
        )
        return Unanswered(f"the server redirects to {address}{advice}", is_lasting)
    return Answer(response.status_code, response.headers, response.content)


def no_answer(error: httpx2.HTTPError) -> Unanswered:
    """Return what went wrong on the way."""
    reason = f"{error} ({type(error).__name__})" if str(error) else type(error).__name__
    return Unanswered(reason, is_lasting="CERTIFICATE_VERIFY_FAILED" in reason)
