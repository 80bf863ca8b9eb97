"""One POST to an address that was looked up once and judged: no answer of a name server comes in between.

No redirect is followed, no proxy of the environment is used, nothing of the answer's body is read, and all of
it together, the look-up included, ends by one deadline, however slowly the other side talks.
"""

import io
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from typing import Any, Self, cast

from shared.webhook_address import Address, Network, Target, may_connect, parse_target

#: From the look-up to the status line.
TIMEOUT_SECONDS = 15.0
#: Of one name; a receiver has few.
_MOST_ADDRESSES = 3
#: Of an answer, up to the end of its head; interim ones before it may have no end.
_MOST_HEAD_BYTES = 65_536
Resolve = Callable[[str, int], Sequence[Address]]


@dataclass(frozen=True)
class Answer:
    """What a receiver made of it: a status; one word where there is none, and beside one that is no 2xx."""

    status: int | None
    error: str | None


class NothingSent(Exception):
    """No connection came about; its text is one word."""


class WebhookSender:
    """Sends from many threads."""

    def __init__(
        self,
        allowed: Sequence[Network],
        ca_file: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        resolve: Resolve | None = None,
    ) -> None:
        """`allowed`: private networks that may be sent to; `ca_file`: what certificates are checked by."""
        self._allowed = allowed
        self._timeout = timeout_seconds
        self._resolve = resolve or _ask_the_system
        self._tls = ssl.create_default_context(cafile=ca_file)
        # The system's look-up cannot be told when to end: it is left behind in a thread of these.
        self._resolvers = ThreadPoolExecutor(32, thread_name_prefix="resolver")

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one body to a URL that `check_url` has passed; whatever the network does is an answer."""
        until = time.monotonic() + self._timeout
        target = parse_target(url)
        try:
            with self._connect(target, until) as connected:
                status = _exchange(connected, target, body, headers)
        except TimeoutError:
            return Answer(None, "timeout")
        except NothingSent as nothing:
            return Answer(None, str(nothing))
        except ssl.SSLError:
            return Answer(None, "tls")
        except (HTTPException, OSError):
            return Answer(None, "no_answer")
        return Answer(status, _word(status))

    def _connect(self, target: Target, until: float) -> "_Timed":
        error: OSError | None = None
        for address in self._addresses(target, until)[:_MOST_ADDRESSES]:
            try:
                plain = socket.create_connection((str(address), target.port), timeout=_left(until))
            except TimeoutError:
                raise
            except OSError as failed:
                error = failed
                continue
            return _Timed(self._encrypted(plain, target, until), until)
        raise NothingSent("no_connection") from error

    def _addresses(self, target: Target, until: float) -> list[Address]:
        """Return those of the target that may be connected to."""
        try:
            found: Sequence[Address] = [ip_address(target.host)]
        except ValueError:
            looked_up = self._resolvers.submit(self._resolve, target.host, target.port)
            try:
                found = looked_up.result(_left(until))
            except TimeoutError:
                raise
            except (OSError, UnicodeError) as error:
                raise NothingSent("name_not_found") from error
        permitted = [address for address in found if may_connect(address, self._allowed)]
        if not permitted:
            raise NothingSent("forbidden_address" if found else "name_not_found")
        return permitted

    def _encrypted(self, plain: socket.socket, target: Target, until: float) -> socket.socket:
        if target.scheme == "http":
            return plain
        try:
            plain.settimeout(_left(until))
            # The certificate is held against the name, although the connection goes to the address.
            return self._tls.wrap_socket(plain, server_hostname=target.host.rstrip("."))
        except BaseException:
            plain.close()
            raise


def _exchange(connected: "_Timed", target: Target, body: bytes, headers: Mapping[str, str]) -> int:
    # Without the port it is looked for behind the last colon, which an IPv6 address has, too.
    connection = HTTPConnection(target.host, target.port)
    connection.sock = cast(Any, connected)  # it needs no more of a socket than that
    given = {"Host": target.authority, "Connection": "close", **headers}
    connection.request("POST", target.path, body, given)
    return connection.getresponse().status


def _word(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return "redirect"
    return "gone" if status == 410 else "not_accepted"


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _ask_the_system(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(item[4][0]) for item in found]


class _Timed:
    """A connection whose every operation ends by one deadline."""

    def __init__(self, connected: socket.socket, until: float) -> None:
        self._socket = connected
        self._until = until
        self._received = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.settimeout(_left(self._until))
        self._socket.sendall(data)

    def receive(self, buffer: memoryview) -> int:
        """Read what has come; 0 at the end."""
        self._socket.settimeout(_left(self._until))
        received = self._socket.recv_into(buffer)
        self._received += received
        if self._received > _MOST_HEAD_BYTES:
            raise HTTPException(f"Expected an answer's head of at most {_MOST_HEAD_BYTES} bytes.")
        return received

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - as a socket has it
        """Return what the answer is read from."""
        return io.BufferedReader(_Stream(self))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


class _Stream(io.RawIOBase):
    def __init__(self, connected: _Timed) -> None:
        self._connected = connected

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._connected.receive(buffer)
