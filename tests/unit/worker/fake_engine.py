"""An engine without a model, for tests: what an image says is what happens.

Talks as `worker/engine/__main__.py` does. "crash", "hang" and "short" misbehave; every other image comes back
as its own text, with the number of images in its micro-batch.
"""

import json
import os
import signal
import sys
import time
from multiprocessing.connection import Connection


def answer(images: list[bytes]) -> dict[str, object]:
    """Do what the images say."""
    if b"crash" in images:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"hang" in images:
        time.sleep(3600)
    outcomes = [
        {"result": {"text": image.decode(), "batch": len(images)}, "timings_ms": {}} for image in images
    ]
    return {"outcomes": outcomes[:-1] if b"short" in images else outcomes}


def main() -> None:
    """Serve until the pipe ends."""
    with Connection(int(sys.argv[-2])) as connection:
        options = json.loads(connection.recv_bytes())
        if options["folder"].endswith("broken"):
            connection.send_bytes(
                b'{"fatal": {"code": "INVALID_MODEL", "detail": "Expected a whole model."}}'
            )
            return
        if options["folder"].endswith("mute"):
            time.sleep(3600)
        connection.send_bytes(b'{"ready": true}')
        while True:
            try:
                sizes = json.loads(connection.recv_bytes())["sizes"]
                body = connection.recv_bytes()
            except EOFError:
                return
            images = []
            for size in sizes:
                images.append(body[:size])
                body = body[size:]
            connection.send_bytes(json.dumps(answer(images)).encode())


if __name__ == "__main__":
    main()
