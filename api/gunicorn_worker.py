"""gunicorn's threaded worker, with an end to every request and problem+json for what it refuses itself."""

import json
import select
import socket
import time
from typing import Any

from gunicorn.http import errors  # type: ignore[import-untyped]  # gunicorn ships no types
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

#: The longest wait and a slow upload fit; one that trickles in longer would keep its thread for ever.
LONGEST_REQUEST_SECONDS = 90
#: A batch is as long as it has items.
LONGEST_BATCH_SECONDS = 900
#: A client in a loop sends its next request within this many milliseconds.
NEXT_REQUEST_MS = 3
#: Status and reason by what was wrong; the first that fits counts.
_REFUSALS: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
    errors.ParseException: (400, "Bad Request"),
}


class BoundedThreadWorker(ThreadWorker):  # type: ignore[misc]  # its base has no types
    """See `gunicorn.workers.gthread`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._busy_since: dict[TConn, float] = {}
        self._with_batches: set[TConn] = set()

    def handle(self, conn: TConn) -> Any:
        """Serve a request of a connection, and those that follow at once; know meanwhile since when."""
        try:
            while True:
                self._busy_since[conn] = time.monotonic()
                self._with_batches.discard(conn)
                is_kept = super().handle(conn)
                if is_kept is not True or not self.alive or not _asks_again(conn):
                    return is_kept
        finally:
            del self._busy_since[conn]
            self._with_batches.discard(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Serve a request whose head has been read."""
        if req.path == "/batches":
            self._with_batches.add(conn)
        return super().handle_request(req, conn)

    def murder_pending(self) -> None:
        """Close what has kept silent too long, as the base does, and what has kept a thread too long."""
        super().murder_pending()
        for conn, since in list(self._busy_since.items()):
            longest = LONGEST_BATCH_SECONDS if conn in self._with_batches else LONGEST_REQUEST_SECONDS
            if time.monotonic() - since > longest:
                _hang_up(conn)

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


def _asks_again(conn: TConn) -> bool:
    """Tell whether the next request comes within a moment: then its thread need not be changed twice."""
    poll = select.poll()
    poll.register(conn.sock, select.POLLIN)
    return bool(poll.poll(NEXT_REQUEST_MS))


def _hang_up(conn: TConn) -> None:
    """End the connection under the thread that serves it, whose next read or write then fails."""
    try:
        conn.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Closed in this moment.
        return


def _refusal(status: int, reason: str) -> bytes:
    code = "INTERNAL" if status == 500 else "INVALID_REQUEST"
    body = json.dumps(
        {
            "type": f"/docs/errors#{code.lower().replace('_', '-')}",
            "title": reason,
            "status": status,
            "detail": "Expected a well-formed HTTP/1.1 request, within the limits of the server.",
            "code": code,
            "retryable": status == 500,
            "request_id": None,
        }
    ).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body
