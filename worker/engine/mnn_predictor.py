"""Run the network by MNN, from the copy that was converted and proven at publication.

Its convolutions of 3 x 3 take fewer multiplications (Winograd: Lavin, Gray 2016, arXiv:1509.09308), so a tile
costs half to nine tenths of ONNX Runtime's CPU time (docs/explanation/performance.md).
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidModel
from shared.manifest import Manifest
from worker.engine.batches import Outputs, check_batch

#: What a converted network calls its input and its outputs.
INPUT_NAME: Final = "image"
OUTPUT_NAMES: Final = ("logits", "features")


class MnnPredictor:
    """One loaded model version; answers like `worker.engine.predictor.Predictor`.

    Each thread computes an image at a time, by a network of its own. A lone image has one thread too: MNN's
    threads spin while they wait for one another, which would take the core from whoever feeds the engine.
    """

    def __init__(self, path: Path, manifest: Manifest, threads: int) -> None:
        """Load the converted network, once a thread, and check it against its manifest.

        Raises:
            InvalidModel: if it cannot be loaded, or has another input, other outputs or another class count.
        """
        self._shape = (manifest.input.height, manifest.input.width, 3)
        with _silence():
            networks = [_Network(path, self._shape, len(manifest.classes)) for _ in range(threads)]
        self._networks = networks
        self._free: SimpleQueue[_Network] = SimpleQueue()
        for network in networks:
            self._free.put(network)
        self._pool = ThreadPoolExecutor(threads, "model")

    def warm_up(self) -> None:
        """Run each network once, so that no job pays for the first allocation."""
        for network in self._networks:
            network.answer(np.zeros(self._shape, np.uint8))

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return logits of shape (n, classes) and pooled features of shape (n, features), both float32.

        `batch` has shape (n, height, width, 3), values 0 to 255; n is 1 or more.

        Raises:
            ValueError: if the batch has another shape or type.
        """
        check_batch(batch, self._shape)
        answers = [self._answer(batch[0])] if len(batch) == 1 else self._pool.map(self._answer, batch)
        logits, features = zip(*answers, strict=True)
        return np.concatenate(logits), np.concatenate(features)

    def _answer(self, image: NDArray[np.uint8]) -> Outputs:
        network = self._free.get()
        try:
            return network.answer(image)
        finally:
            self._free.put(network)


class _Network:
    """The network with memory of its own, for one thread at a time."""

    def __init__(self, path: Path, shape: tuple[int, int, int], classes: int) -> None:
        import MNN  # noqa: PLC0415 - prints as it is imported

        one = (1, *shape)
        try:
            self._interpreter = MNN.Interpreter(str(path))
            self._session = self._interpreter.createSession(
                {"backend": "CPU", "numThread": 1, "precision": "high"}
            )
            inputs = self._interpreter.getSessionInputAll(self._session)
            outputs = self._interpreter.getSessionOutputAll(self._session)
        except Exception as error:  # a damaged file raises anything
            raise InvalidModel(f"Expected a loadable MNN network. Received: {path.name}") from error
        found = {name: tuple(tensor.getShape()) for name, tensor in (inputs | outputs).items()}
        if found.keys() != {INPUT_NAME, *OUTPUT_NAMES} or found[INPUT_NAME] != one:
            raise InvalidModel(f"Expected {INPUT_NAME} {one} and {OUTPUT_NAMES} of MNN. Received: {found}")
        if found["logits"] != (1, classes) or len(found["features"]) != 2:
            raise InvalidModel(f"Expected {classes} classes. Received of MNN: {found}")
        self._input = inputs[INPUT_NAME]
        self._given, self._pixels = _host_tensor(MNN, one)
        self._outputs = [(outputs[name], *_host_tensor(MNN, found[name])) for name in OUTPUT_NAMES]

    def answer(self, image: NDArray[np.uint8]) -> Outputs:
        """Return logits (1, classes) and features (1, features) of one image (height, width, 3)."""
        self._pixels[0] = image
        self._input.copyFrom(self._given)
        status = self._interpreter.runSession(self._session)
        if status != 0:
            raise RuntimeError(f"Expected MNN to run the network. It gave status {status}.")
        for output, host, _ in self._outputs:
            output.copyToHostTensor(host)
        logits, features = (values.copy() for *_, values in self._outputs)
        return logits, features


def _host_tensor(mnn: Any, shape: tuple[int, ...]) -> tuple[Any, NDArray[np.float32]]:
    """Return a tensor of MNN's, which has to be kept, and its values as NumPy sees them."""
    tensor = mnn.Tensor(
        shape, mnn.Halide_Type_Float, np.zeros(shape, np.float32), mnn.Tensor_DimensionType_Caffe
    )
    return tensor, tensor.getNumpyData()


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what MNN prints while it is loaded: standard output is for the logs' lines."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
