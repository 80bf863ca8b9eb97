"""What decoding beside the model gains: `python -m benchmarks.decoding [SECONDS]`.

Runs the engine's own code here as a worker does (the fastest runtime, a thread a core), decoding in one
thread and in one a core; prints images a second and CPU core-milliseconds an image.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arguments import read_numbers
from benchmarks.models import with_converted_networks
from benchmarks.tiles import gather_tiles
from ops.prepare import newest_bundled_model
from shared.manifest import MANIFEST_NAME, parse_manifest
from worker.cores import usable_cores
from worker.engine.pipeline import Pipeline
from worker.engine.runtime import FASTEST_FIRST, Order, load

CACHE = Path(__file__).parent / ".cache"
DATA = Path("../shared/data")
BATCHES = (8, 64)
#: The fastest; `auto` might take TensorFlow for a graphics card.
RUNTIME = FASTEST_FIRST[0]
_MAX_PIXELS = 4096 * 4096


def main(seconds: float) -> None:
    """Measure each size of tile and of micro-batch."""
    model = with_converted_networks(newest_bundled_model(), CACHE)
    manifest = parse_manifest((model / MANIFEST_NAME).read_bytes())
    order = Order(model, manifest, threads=usable_cores(), buckets=BATCHES)
    predictor = load(RUNTIME, order).predictor
    for size in (224, 768):
        tiles = [path.read_bytes() for path in gather_tiles(size, 24, model, DATA, CACHE)]
        for batch in BATCHES:
            images = (tiles * batch)[:batch]
            for threads in sorted({1, usable_cores()}):
                pipeline = Pipeline(predictor, manifest, _MAX_PIXELS, threads)
                found = measure(pipeline, images, seconds)
                print(
                    json.dumps({"px": size, "batch": batch, "decode_threads": threads, **found}), flush=True
                )


def measure(pipeline: Pipeline, images: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Run one micro-batch again and again for so long."""
    pipeline.run(images)
    began, used, done = time.perf_counter(), time.process_time(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        done += len(pipeline.run(images))
    core_ms = 1000 * (time.process_time() - used) / done
    return {"images_a_second": round(done / elapsed, 1), "core_ms": round(core_ms, 2)}


if __name__ == "__main__":
    main(*read_numbers("decoding", __doc__, seconds=5.0))
