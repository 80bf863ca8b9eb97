"""A server that costs next to nothing, to see what the client costs: `python -m tests.light_server PORT`.

It accepts every image, answers at once as the API would, checks nothing, and its memory does not grow.
"""

import json
import socketserver
import sys
import uuid

from tests.api_server import RESULT

_JOB = {
    "id": "0192f0c4-5b1e-4c1b-9d43-2f6f0f6f8a11",
    "status": "succeeded",
    "custom_id": None,
    "cached": False,
    "created_at": "2026-01-31T09:30:00.125Z",
    "started_at": "2026-01-31T09:30:00.129Z",
    "finished_at": "2026-01-31T09:30:00.143Z",
    "expires_at": "2026-02-07T09:30:00.143Z",
    "attempt": 1,
    "queue": None,
    "model": {"name": "lung-cnn", "version": "1.0.0", "sha256": "0" * 64},
    "input": {"sha256": "0" * 64, "bytes": 12000, "width": 224, "height": 224, "media_type": "image/jpeg"},
    "result": RESULT,
    "error": None,
    "timings_ms": {"queue": 4, "fetch": 1, "decode": 3, "inference": 9},
    "batch": None,
    "links": {"self": "/result/0192f0c4-5b1e-4c1b-9d43-2f6f0f6f8a11", "cancel": None},
}
_BODY = json.dumps(_JOB)


class Handler(socketserver.StreamRequestHandler):
    """Reads requests with a length, one after the other, and answers each with a job that has succeeded."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Serve one connection until it is closed."""
        while head := self._head():
            self.rfile.read(int(head.get(b"content-length", b"0")))
            body = _BODY.replace(_JOB["id"], str(uuid.uuid4())).encode()  # type: ignore[arg-type]
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )

    def _head(self) -> dict[bytes, bytes]:
        lines = []
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            lines.append(line)
        pairs = (line.split(b":", 1) for line in lines[1:])
        return {name.lower(): value.strip() for name, value in pairs} or ({b"": b""} if lines else {})


class Server(socketserver.ThreadingTCPServer):
    """One thread a connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()
