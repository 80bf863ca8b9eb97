"""Run the network by ONNX Runtime, from the copy that was converted and proven at publication.

Less CPU time than TensorFlow and a sixth of its memory (docs/explanation/performance.md), since TensorFlow is
not even imported.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shared.errors import InvalidModel
from shared.manifest import Manifest
from worker.engine.batches import Outputs, check_batch

#: A thread computes images of so many pixels at once: what one layer leaves is then still near the core when
#: the next one reads it, and at the end of a micro-batch no thread waits for another's second tile.
PIXELS_AT_ONCE: Final = 224 * 224


class OnnxPredictor:
    """One loaded model version; answers like `worker.engine.predictor.Predictor`.

    All threads share the layers of an image that is alone; several images are dealt out among them, each
    thread going through the whole network by itself, which has nothing to wait for after each layer.
    """

    def __init__(self, path: Path, manifest: Manifest, threads: int) -> None:
        """Load the converted network and check it against its manifest.

        Raises:
            InvalidModel: if it cannot be loaded, or has another input or class count.
        """
        self._shape = (manifest.input.height, manifest.input.width, 3)
        self._largest = max(1, PIXELS_AT_ONCE // (manifest.input.height * manifest.input.width))
        self._threads = threads
        self._shared = _open(path, threads)
        self._single = _open(path, 1) if threads > 1 else self._shared
        self._pool = ThreadPoolExecutor(threads, "model")
        (self._input,) = [item.name for item in self._shared.get_inputs()]
        self._check(len(manifest.classes))

    def warm_up(self) -> None:
        """Run once in every way, so that no job pays for the first allocation."""
        for images in (1, self._threads * self._largest):
            self.predict(np.zeros((images, *self._shape), np.uint8))

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return logits of shape (n, classes) and pooled features of shape (n, features), both float32.

        `batch` has shape (n, height, width, 3), values 0 to 255; n is 1 or more.

        Raises:
            ValueError: if the batch has another shape or type.
        """
        check_batch(batch, self._shape)
        if len(batch) == 1:
            return self._run(self._shared, batch)
        size = min(self._largest, -(-len(batch) // self._threads))
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        answers = self._pool.map(lambda part: self._run(self._single, part), parts)
        logits, features = zip(*answers, strict=True)
        return np.concatenate(logits), np.concatenate(features)

    def _run(self, session: onnxruntime.InferenceSession, batch: NDArray[np.uint8]) -> Outputs:
        logits, features = session.run(None, {self._input: batch.astype(np.float32)})
        return logits, features

    def _check(self, classes: int) -> None:
        try:
            logits, features = self._run(self._shared, np.zeros((1, *self._shape), np.uint8))
        except Exception as error:  # a network of another input, or with another number of outputs
            raise InvalidModel(f"Expected an ONNX network for inputs of {self._shape}.") from error
        if logits.shape != (1, classes) or features.ndim != 2:
            raise InvalidModel(f"Expected {classes} classes. Received logits of shape {logits.shape}")


def _open(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that spins while it waits takes the core from whoever feeds the engine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a damaged file raises anything
        raise InvalidModel(f"Expected a loadable ONNX network. Received: {path.name}") from error
