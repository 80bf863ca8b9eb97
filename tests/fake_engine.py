"""An engine without a model, for tests: what an image says is what happens.

    python tests/fake_engine.py [--milliseconds N] FILE_DESCRIPTOR PARENT_PID

Talks as `worker/engine/__main__.py` does. An image that contains `!crash!`, `!hang!`, `!short!` or `!grow!`
misbehaves; every other one comes back as its own text and digest, with its stated scale and its micro-batch's
size.
"""

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

CRASH, HANG, SHORT, GROW = b"!crash!", b"!hang!", b"!short!", b"!grow!"


def answer(images: list[bytes], mpps: list[float | None], milliseconds: float) -> dict[str, object]:
    """Do what the images say, and take some time for each."""
    everything = b"".join(images)
    if CRASH in everything:
        os.kill(os.getpid(), signal.SIGSEGV)
    if GROW in everything:
        hoard = b"x" * 300_000_000
        time.sleep(3600 + len(hoard))
    if HANG in everything:
        time.sleep(3600)
    time.sleep(milliseconds / 1000 * len(images))
    outcomes = [
        {
            "result": {
                "text": image.decode(errors="replace")[:100],
                "sha256": hashlib.sha256(image).hexdigest(),
                "batch": len(images),
                "mpp": mpp,
            },
            "timings_ms": {},
        }
        for image, mpp in zip(images, mpps, strict=True)
    ]
    return {"outcomes": outcomes[:-1] if SHORT in everything else outcomes}


def main(before: Callable[[list[bytes]], None] = lambda images: None) -> None:
    """Serve until the pipe ends, or the parent does; `before` sees each micro-batch first."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    milliseconds = (
        float(sys.argv[sys.argv.index("--milliseconds") + 1]) if "--milliseconds" in sys.argv else 0.0
    )
    with Connection(int(sys.argv[-2])) as connection:
        options = json.loads(connection.recv_bytes())
        if options["folder"].endswith("broken"):
            connection.send_bytes(
                b'{"fatal": {"code": "INVALID_MODEL", "detail": "Expected a whole model."}}'
            )
            return
        if options["needs_gpu"]:
            connection.send_bytes(b'{"fatal": {"code": "NO_GPU", "detail": "Expected a GPU."}}')
            return
        connection.send_bytes(b'{"ready": true}')
        while True:
            try:
                header = json.loads(connection.recv_bytes())
                body = connection.recv_bytes()
            except EOFError:
                return
            images = []
            for size in header["sizes"]:
                images.append(body[:size])
                body = body[size:]
            before(images)
            connection.send_bytes(json.dumps(answer(images, header["mpps"], milliseconds)).encode())


if __name__ == "__main__":
    main()
