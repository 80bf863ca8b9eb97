"""LitServe with batching: two model processes of one thread each, ZeroMQ between them and the server."""

import sys

import litserve
from limits import LARGEST


class Tiles(litserve.LitAPI):
    """Bytes in, probabilities out."""

    def setup(self, device):
        """Load the model, in each process."""
        from network import Network

        self.network = Network().warm_up()

    def decode_request(self, request):
        """Take the file out of the form."""
        return request["file"].file.read()

    def batch(self, inputs):
        """Keep a list: tiles of several sizes cannot be stacked before they are decoded."""
        return list(inputs)

    def predict(self, images):
        """Answer a micro-batch."""
        return self.network.answer(images)

    def unbatch(self, output):
        """Give each its row."""
        return output

    def encode_response(self, output):
        """Answer with the bare list."""
        return {"probabilities": output}


if __name__ == "__main__":
    api = Tiles(max_batch_size=LARGEST, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2, timeout=60, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
