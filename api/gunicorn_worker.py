"""gunicorn's threaded worker, with an end to every request and problem+json for what it refuses itself."""

import errno
import json
import os
import re
import select
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.http import (  # type: ignore[import-untyped]  # gunicorn ships no types
    RequestParser,
    errors,
)
from gunicorn.http.body import LengthReader  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from shared.problems import problem_body

#: The longest wait and a slow upload fit; one that trickles in longer would keep its thread for ever.
LONGEST_REQUEST_SECONDS = 90
#: A batch is as long as it has items.
LONGEST_BATCH_SECONDS = 900
#: A client that neither sends nor takes anything for so long, in the middle of that, is gone.
LONGEST_SILENCE_SECONDS = 30.0
#: What a read or a write raises then.
_SILENT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
#: The head of a request is sent in one piece, or not for its own sake.
LONGEST_HEAD_SECONDS = 5
#: A head that is longer goes on in its thread, which refuses most.
MOST_HEAD_BYTES = 65_536
_HEAD_END = b"\r\n\r\n"
_BLOCK_BYTES = 8_192
#: What is left of a body that nobody reads is waited for so long, before the answer.
SKIP_SECONDS = 0.1
#: An answer that is refused its request's body is read by a client within so long, while that still comes.
LINGER_SECONDS = 2.0
MOST_LINGERING_BYTES = 64_000_000
#: So many threads at the most do nothing but that.
_LINGERING = threading.BoundedSemaphore(64)
#: A name or an address, with a port or without; or nothing.
_HOST = re.compile(r"(?:[A-Za-z0-9._~%!$&'()*+,;=-]*|\[[A-Za-z0-9:.%_~-]+\])(?::[0-9]*)?")
#: A client in a loop sends its next request within this many milliseconds.
NEXT_REQUEST_MS = 3
#: Status and reason by what was wrong; the first that fits counts.
_REFUSALS: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
    errors.ParseException: (400, "Bad Request"),
}


class BodyParser(RequestParser):  # type: ignore[misc]  # its base has no types
    """See `gunicorn.http.parser`."""

    def finish_body(self, deadline: float | None = None, max_bytes: int | None = None) -> bool:
        """Drop what nobody read of a body; tell whether it is over.

        The base sets and resets time-outs even where all was read, as it nearly always is: three times a
        request, and at each of these calls another thread takes Python's lock.
        """
        body = getattr(self.mesg, "body", None)
        if body and isinstance(body.reader, LengthReader) and not (body.reader.length or body.failed):
            return True
        return bool(super().finish_body(deadline, max_bytes))


class BoundedThreadWorker(ThreadWorker):  # type: ignore[misc]  # its base has no types
    """See `gunicorn.workers.gthread`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._busy_since: dict[TConn, float] = {}
        self._with_batches: set[TConn] = set()
        self._without_head: set[TConn] = set()

    def enqueue_req(self, conn: TConn) -> None:
        """Have a connection served once the head of a request is here: until then it costs no thread."""
        if conn.parser is None:
            _limit_silence(conn.sock)
        if self.cfg.is_ssl:
            super().enqueue_req(conn)
            return
        if conn.parser is None:
            conn.parser = BodyParser(self.cfg, conn.sock, conn.client)
            conn.data_ready = True
        if _has_head(conn):
            super().enqueue_req(conn)
            return
        conn.timeout = time.monotonic() + LONGEST_HEAD_SECONDS
        # The base closes those whose time is over: they lie there in its order.
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Take in what has come of a head; its time goes on."""
        if self.cfg.is_ssl or _has_head(conn):
            self.poller.unregister(client)
            self.pending_conns.remove(conn)
            super().enqueue_req(conn)

    def handle(self, conn: TConn) -> Any:
        """Serve a request of a connection, and those that follow at once; know meanwhile since when."""
        try:
            while True:
                self._busy_since[conn] = time.monotonic()
                self._with_batches.discard(conn)
                self._without_head.add(conn)
                is_kept = super().handle(conn)
                if is_kept is False:
                    _linger(conn.sock)
                # What TLS has taken in already is the base's to know.
                if is_kept is not True or not self.alive or self.cfg.is_ssl or not _asks_again(conn):
                    return is_kept
        finally:
            del self._busy_since[conn]
            self._with_batches.discard(conn)
            self._without_head.discard(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Serve a request whose head has been read."""
        self._without_head.discard(conn)
        _check_host(req)
        # Below wherever the application is mounted.
        if req.path.endswith("/batches"):
            self._with_batches.add(conn)
        # Asked for the answer's head, the last moment at which it can still say so.
        req.should_close = partial(_is_last, conn, req.should_close)
        try:
            return super().handle_request(req, conn)
        except _SILENT as error:
            # As one that hung up, which is no error of ours.
            raise ConnectionResetError(errno.ECONNRESET, "The client is silent.") from error

    def murder_pending(self) -> None:
        """Close what has kept silent too long, as the base does, and what has kept a thread too long."""
        super().murder_pending()
        for conn, since in list(self._busy_since.items()):
            longest = LONGEST_BATCH_SECONDS if conn in self._with_batches else LONGEST_REQUEST_SECONDS
            if conn in self._without_head:
                longest = LONGEST_HEAD_SECONDS
            if time.monotonic() - since > longest:
                _hang_up(conn.sock)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:  # noqa: ARG002
        """Answer a request that never became one for the application."""
        status, reason = next(
            (answer for kind, answer in _REFUSALS.items() if isinstance(exc, kind)),
            (500, "Internal Server Error"),
        )
        if status == 500:
            self.log.exception("Error handling request")
        else:
            # Not the text: it repeats what the client sent.
            self.log.info("Refused a request: %s", type(exc).__name__)
        try:
            client.settimeout(1)
            client.sendall(_refusal(status, reason))
        except OSError:
            self.log.debug("The client left before it was refused.")


def _limit_silence(sock: socket.socket) -> None:
    """Have a read or a write end with an error of `_SILENT` once nothing of it has moved for too long.

    By the kernel: a time-out of Python's counts the whole of a write, however steadily it is taken.
    """
    seconds, rest = divmod(LONGEST_SILENCE_SECONDS, 1)
    longest = struct.pack("@ll", int(seconds), int(rest * 1e6))
    # It may be closed by now, as the time for its head is over.
    with suppress(OSError):
        for side in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, side, longest)


def _is_last(conn: TConn, is_asked_to_close: Callable[[], bool]) -> bool:
    """Tell whether a connection ends with this request: as the client asks, or by what is left of its body.

    A short rest of one that nobody read is dropped here. A long or slow one is not waited for, and a client
    that is not told would send its next request into a closed connection (RFC 9112, section 9.3).
    """
    try:
        return is_asked_to_close() or not conn.parser.finish_body(deadline=time.monotonic() + SKIP_SECONDS)
    except (OSError, errors.ParseException):
        # Where a broken body ends is unknown.
        return True


def _asks_again(conn: TConn) -> bool:
    """Tell whether the next request's head comes within a moment: its thread need not be changed twice."""
    poll = select.poll()
    poll.register(conn.sock, select.POLLIN)
    # A client that left is seen off in the same thread.
    return bool(poll.poll(NEXT_REQUEST_MS)) and _has_head(conn)


def _check_host(req: Any) -> None:
    """Refuse a request that names no host, or nonsense (RFC 9112, section 3.2); gunicorn refuses two."""
    hosts = [value for name, value in req.headers if name == "HOST"]
    if (not hosts and req.version >= (1, 1)) or not all(map(_HOST.fullmatch, hosts)):
        raise errors.InvalidHeader("HOST")


def _has_head(conn: TConn) -> bool:
    """Take in what has come of a request's head; tell whether it is whole, or will never be."""
    held = conn.parser.unreader.buf
    try:
        came = conn.sock.recv(_BLOCK_BYTES, socket.MSG_DONTWAIT)
    except BlockingIOError:
        came = None
    except OSError:
        # The thread that reads on is told the same.
        return True
    held.seek(0, 2)
    held.write(came or b"")
    return came == b"" or held.tell() > MOST_HEAD_BYTES or _HEAD_END in held.getvalue()


def _linger(sock: socket.socket) -> None:
    """Let the client read its answer before the connection is closed (RFC 9112, section 9.6).

    A close while a body that nobody reads still comes in is a reset, and takes the answer away.
    """
    if _LINGERING.acquire(blocking=False):
        try:
            sock.shutdown(socket.SHUT_WR)
            until, left, block = time.monotonic() + LINGER_SECONDS, MOST_LINGERING_BYTES, bytearray(65_536)
            while left > 0 and (seconds := until - time.monotonic()) > 0:
                sock.settimeout(seconds)
                received = sock.recv_into(block)
                if not received:
                    break
                left -= received
        except OSError:
            # The client is gone, or silent.
            pass
        finally:
            _LINGERING.release()
    # The main thread, which closes it, then has nothing to wait for.
    _hang_up(sock)


def _hang_up(sock: socket.socket) -> None:
    """End a connection, also under the thread that serves it, whose next read or write then fails."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Closed in this moment.
        return


def _refusal(status: int, reason: str) -> bytes:
    code, detail = "INTERNAL", "The server broke; its log says why."
    if status != 500:
        code = "INVALID_REQUEST"
        detail = "Expected a well-formed HTTP/1.1 request, within the limits of the server."
    # Its path may be what could not be read.
    problem = problem_body(code, detail, "", None, os.environ.get("SCRIPT_NAME", ""), status)
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body
