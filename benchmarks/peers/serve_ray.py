"""Ray Serve with batching: two replicas of one thread each."""

import signal
import sys

import ray
from limits import LARGEST
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Tiles:
    """Bytes in, probabilities out."""

    def __init__(self) -> None:
        from network import Network

        self.network = Network().warm_up()

    @serve.batch(max_batch_size=LARGEST, batch_wait_timeout_s=0.002)
    async def predict(self, images: list[bytes]) -> list[list[float]]:
        """Answer a micro-batch."""
        return self.network.answer(images)

    async def __call__(self, request: Request) -> list[float]:
        """Answer the raw body of one request."""
        return await self.predict(await request.body())


if __name__ == "__main__":
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Tiles.bind(), name="tiles", route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
