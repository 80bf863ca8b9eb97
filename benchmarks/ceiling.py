"""What this machine could do with no server at all: decode, preprocess and model, by the engine's own code.

`python -m benchmarks.ceiling` reads an order, says that it is ready, waits for a line, runs, prints a report.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import read_numbers
from shared.manifest import MANIFEST_NAME, Manifest, parse_manifest
from worker.engine.calibration import calibrate
from worker.engine.decode import decode_picture
from worker.engine.pipeline import Model, Pipeline
from worker.engine.preprocess import least_side, resize
from worker.engine.runtime import Order, load

_MAX_PIXELS = 4096 * 4096
Answer = Callable[[Sequence[bytes]], list[list[float]]]


def bare(predictor: Model, manifest: Manifest) -> Answer:
    """Return decode, preprocess and model alone: the ceiling."""
    side = least_side(manifest.input)

    def prepare(image: bytes) -> NDArray[np.uint8]:
        return resize(decode_picture(image, _MAX_PIXELS, side).picture, manifest.input)

    def answer(images: Sequence[bytes]) -> list[list[float]]:
        logits, _ = predictor.predict(np.stack([prepare(image) for image in images]))
        rows: list[list[float]] = calibrate(logits, manifest.temperature).tolist()
        return rows

    return answer


def whole_engine(predictor: Model, manifest: Manifest) -> Answer:
    """Return all that the engine does with a micro-batch: the gates and the words of the answer too."""
    pipeline = Pipeline(predictor, manifest, max_pixels=_MAX_PIXELS)

    def answer(images: Sequence[bytes]) -> list[list[float]]:
        results = [
            outcome["result"]["probabilities"] for outcome in pipeline.run(images) if "result" in outcome
        ]
        return [list(result.values()) for result in results if result]

    return answer


def repeat(answer: Answer, tiles: Sequence[bytes], batch_size: int, seconds: float) -> tuple[int, float]:
    """Run micro-batches for so long; return how many tiles were answered, and in how many seconds."""
    batches = [
        [tiles[(start + step) % len(tiles)] for step in range(batch_size)]
        for start in range(0, len(tiles), batch_size)
    ]
    began, done, number = time.perf_counter(), 0, 0
    while (elapsed := time.perf_counter() - began) < seconds:
        done += len(answer(batches[number % len(batches)]))
        number += 1
    return done, elapsed


def main() -> int:
    """Carry out one order."""
    order = json.loads(sys.stdin.readline())
    started = time.perf_counter()
    folder = Path(order["model"])
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    loaded = load(
        order["runtime"], Order(folder, manifest, order["threads"], buckets=(1, order["batch_size"]))
    )
    if loaded.warning is not None:
        raise RuntimeError(loaded.warning)
    answer = (whole_engine if order["gates"] else bare)(loaded.predictor, manifest)
    tiles = [Path(path).read_bytes() for path in order["tiles"]]
    answers = [row for tile in tiles for row in answer([tile])]
    print(json.dumps({"ready": True, "start_seconds": time.perf_counter() - started}), flush=True)
    sys.stdin.readline()
    cpu = time.process_time()
    done, elapsed = repeat(answer, tiles, order["batch_size"], order["seconds"])
    cpu = time.process_time() - cpu
    print(json.dumps({"tiles": done, "seconds": elapsed, "cpu_seconds": cpu, "answers": answers}), flush=True)
    return 0


if __name__ == "__main__":
    read_numbers("ceiling", __doc__)
    sys.exit(main())
