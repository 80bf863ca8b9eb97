"""BentoML: adaptive batching behind `/predict`, a task queue behind `/job`."""

import os
from pathlib import Path

import bentoml
from limits import LARGEST


@bentoml.service(
    workers=int(os.environ.get("BENCH_WORKERS", "1")),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
)
class Tiles:
    """One tile a request."""

    def __init__(self) -> None:
        from network import Network

        self.network = Network().warm_up()

    @bentoml.api(batchable=True, max_batch_size=LARGEST, max_latency_ms=60_000)
    def predict(self, images: list[Path]) -> list[list[float]]:
        """Answer a micro-batch that BentoML gathered."""
        return self.network.answer([image.read_bytes() for image in images])

    @bentoml.task
    def job(self, image: Path) -> list[float]:
        """Answer one tile, later."""
        return self.network.answer([image.read_bytes()])[0]
