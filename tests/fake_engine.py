"""An engine without a model, for tests: what an image says is what happens.

    python -m tests.fake_engine [--milliseconds N] FILE_DESCRIPTOR PARENT_PID

An image that contains `!crash!`, `!hang!`, `!short!` or `!grow!` misbehaves; every other one comes back as
its own text and digest, with its stated scale and its micro-batch's size.
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

from worker.engine.pipe import send, serve

CRASH, HANG, SHORT, GROW = b"!crash!", b"!hang!", b"!short!", b"!grow!"


def answer(images: list[bytes], mpps: list[float | None], milliseconds: float) -> list[object]:
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
    outcomes: list[object] = [
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
    return outcomes[:-1] if SHORT in everything else outcomes


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
            send(connection, {"fatal": {"code": "INVALID_MODEL", "detail": "Expected a whole model."}})
            return
        if options["needs_gpu"]:
            send(connection, {"fatal": {"code": "NO_GPU", "detail": "Expected a GPU."}})
            return
        send(connection, {"ready": True})

        def run(images: list[bytes], mpps: list[float | None], explained: list[bool]) -> list[object]:
            before(images)
            return answer(images, mpps, milliseconds)

        serve(connection, run)


if __name__ == "__main__":
    main()
