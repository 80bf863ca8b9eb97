"""The engine without its network: real decoding, gates and preprocessing, in a process of its own.

python -m tests.torture.pipeline_engine FILE_DESCRIPTOR PARENT_PID
"""

import ctypes
import itertools
import json
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.manifest import MANIFEST_NAME, parse_manifest
from worker.engine.pipeline import Pipeline


class Undecided:
    """Gives every image the same logits."""

    def predict(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits of three classes, all zero."""
        return np.zeros((len(batch), 3), np.float32), np.zeros((len(batch), 1), np.float32)


def main(descriptor: int, parent: int) -> None:
    """Serve as the engine does; the real loop cannot be imported without TensorFlow."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            return
    with Connection(descriptor) as connection:
        options = json.loads(connection.recv_bytes())
        manifest = parse_manifest((Path(options["folder"]) / MANIFEST_NAME).read_bytes())
        pipeline = Pipeline(Undecided(), manifest, int(options["max_pixels"]))
        connection.send_bytes(b'{"ready": true}')
        while True:
            try:
                sizes = json.loads(connection.recv_bytes())["sizes"]
                body = connection.recv_bytes()
            except EOFError:
                return
            ends = list(itertools.accumulate(sizes))
            images = [body[end - size : end] for end, size in zip(ends, sizes, strict=True)]
            connection.send_bytes(json.dumps({"outcomes": pipeline.run(images)}).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
