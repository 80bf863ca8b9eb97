"""The engine process: micro-batch in, outcomes out, over one pipe to its parent.

    python -m worker.engine FILE_DESCRIPTOR PARENT_PID

What they say to each other is in `pipe.py`. It ends when the pipe does.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from shared.errors import HistoQueueError
from shared.manifest import MANIFEST_NAME, Manifest, parse_manifest
from worker.engine.pipe import send, serve
from worker.engine.pipeline import Pipeline
from worker.engine.runtime import Loaded, Order, load
from worker.gpu import NO_GPU, NoGpu

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "500"


def main(descriptor: int, parent: int) -> int:
    """Serve one parent until it closes the pipe; returns the exit status."""
    _end_with(parent)
    with Connection(descriptor) as connection:
        try:
            options = json.loads(connection.recv_bytes())
            manifest, loaded = _load(options)
        except HistoQueueError as error:
            send(connection, {"fatal": {"code": error.code, "detail": error.detail}})
            return 1
        except NoGpu as error:
            send(connection, {"fatal": {"code": NO_GPU, "detail": str(error)}})
            return 1
        send(connection, {"ready": True, "runtime": loaded.runtime, "warning": loaded.warning})
        max_pixels, decode_threads = int(options["max_pixels"]), int(options["decode_threads"])
        serve(connection, Pipeline(loaded.predictor, manifest, max_pixels, decode_threads).run)
    return 0


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent is gone, even in the middle of a micro-batch."""
    # Ctrl-C goes to the whole group of a terminal; when to end is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            sys.exit(1)
        # Where memory runs out, the kernel is to take this process and not its parent.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def _load(options: dict[str, object]) -> tuple[Manifest, Loaded]:
    folder = Path(str(options["folder"]))
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    order = Order(
        folder,
        manifest,
        threads=int(str(options["threads"])),
        buckets=tuple(_buckets(int(str(options["max_batch_size"])))),
        needs_gpu=bool(options["needs_gpu"]),
    )
    return manifest, load(str(options["runtime"]), order)


def _buckets(largest: int) -> Iterator[int]:
    """Yield the batch sizes that are traced: powers of two, and the largest micro-batch."""
    size = 1
    while size < largest:
        yield size
        size *= 2
    yield largest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m worker.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("descriptor", type=int, metavar="FILE_DESCRIPTOR")
    parser.add_argument("parent", type=int, metavar="PARENT_PID")
    sys.exit(main(**vars(parser.parse_args())))
