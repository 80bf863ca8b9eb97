"""The engine without its network: real decoding, gates and preprocessing, in a process of its own.

python -m tests.torture.pipeline_engine FILE_DESCRIPTOR PARENT_PID
"""

import ctypes
import json
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.manifest import MANIFEST_NAME, Manifest, parse_manifest
from worker.engine.pipe import send, serve
from worker.engine.pipeline import Pipeline


class Undecided:
    """Gives every image the same logits, and features of the width that the manifest's gates expect."""

    def __init__(self, manifest: Manifest) -> None:
        statistics = manifest.gates.features
        self._shape = len(manifest.classes), len(statistics.projection[0]) if statistics else 1

    def predict(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return zeros."""
        classes, features = self._shape
        return np.zeros((len(batch), classes), np.float32), np.zeros((len(batch), features), np.float32)


def main(descriptor: int, parent: int) -> None:
    """Serve as the engine does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            return
    with Connection(descriptor) as connection:
        options = json.loads(connection.recv_bytes())
        manifest = parse_manifest((Path(options["folder"]) / MANIFEST_NAME).read_bytes())
        pipeline = Pipeline(Undecided(manifest), manifest, int(options["max_pixels"]))
        send(connection, {"ready": True})
        serve(connection, pipeline.run)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
