"""A server that costs next to nothing, to see what the client costs: `python -m tests.light_server PORT`.

It accepts every image, answers at once as the API would, checks nothing, and its memory does not grow.
"""

import json
import re
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
_RESULTS = re.compile(rb"GET /batches/(\d+)-")


def new_job(name: str | None = None) -> str:
    """Return a job that has succeeded."""
    job = _BODY.replace(_JOB["id"], str(uuid.uuid4()))  # type: ignore[arg-type]
    return job if name is None else job.replace('"custom_id": null', f'"custom_id": "{name}"')


def answer(line: bytes, body: bytes) -> str:
    """Return what a request is answered with; a batch's id says how many files it had."""
    if found := _RESULTS.match(line):
        return "\n".join(new_job(str(number)) for number in range(int(found[1])))
    if not line.startswith(b"POST /batches"):
        return new_job()
    files = body.count(b'name="file"')
    items = [{"custom_id": str(number), "id": str(number)} for number in range(files)]
    return json.dumps({"id": f"{files}-{uuid.uuid4()}", "items": items, "problems": []})


class Handler(socketserver.StreamRequestHandler):
    """Reads requests with a length, one after the other; every image has succeeded at once."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Serve one connection until it is closed."""
        while (request := self._head()) is not None:
            line, head = request
            body = answer(line, self.rfile.read(int(head.get(b"content-length", b"0")))).encode()
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )

    def _head(self) -> tuple[bytes, dict[bytes, bytes]] | None:
        """Return a request's first line and its headers; None where the connection is closed."""
        lines = []
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            lines.append(line)
        pairs = (line.split(b":", 1) for line in lines[1:])
        return (lines[0], {name.lower(): value.strip() for name, value in pairs}) if lines else None


class Server(socketserver.ThreadingTCPServer):
    """One thread a connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()
