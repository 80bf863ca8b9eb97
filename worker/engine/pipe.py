"""What a worker and its engine say to each other over their pipe, frame by frame.

First comes one frame that says what to load; the answer is `{"ready": true, "runtime": …}`, with a warning
where that is not the runtime that was asked for, or `{"fatal": …}`. Then, for each micro-batch, a frame with
the sizes, the micrometres per pixel (null where unknown) and which image is to be explained, and a frame with
the images' bytes one after the other; the answer is `{"outcomes": […]}`.
"""

import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from multiprocessing.connection import Connection

#: Answers a micro-batch: images, what is known of their scales, and which are to be explained.
Run = Callable[[list[bytes], list[float | None], list[bool]], Sequence[object]]


def pack(images: Sequence[bytes], mpps: Sequence[float | None], explained: Sequence[bool]) -> list[bytes]:
    """Return the frames of a micro-batch."""
    header = {"sizes": [len(image) for image in images], "mpps": list(mpps), "explained": list(explained)}
    return [json.dumps(header).encode(), b"".join(images)]


def send(connection: "Connection[bytes, bytes]", answer: object) -> None:
    """Send one answer.

    Raises:
        ValueError: if it holds a number that JSON has no word for.
    """
    connection.send_bytes(json.dumps(answer, allow_nan=False).encode())


def serve(connection: "Connection[bytes, bytes]", run: Run) -> None:
    """Answer micro-batches until the pipe ends."""
    while True:
        try:
            header = json.loads(connection.recv_bytes())
            body = connection.recv_bytes()
        except EOFError:
            return
        sizes = header["sizes"]
        images = [body[end - size : end] for end, size in zip(accumulate(sizes), sizes, strict=True)]
        send(connection, {"outcomes": run(images, header["mpps"], header["explained"])})
