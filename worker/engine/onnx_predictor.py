"""Run the network by ONNX Runtime, from the copy that was converted and proven at publication.

Less CPU time than TensorFlow and a sixth of its memory (docs/explanation/performance.md), since TensorFlow is
not even imported.
"""

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shared.errors import InvalidModel
from shared.manifest import Manifest

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
#: More images than that at once only take memory: on a CPU a larger micro-batch is no faster.
LARGEST_BATCH: Final = 16


class OnnxPredictor:
    """One loaded model version; answers like `worker.engine.predictor.Predictor`."""

    def __init__(self, path: Path, manifest: Manifest, threads: int) -> None:
        """Load the converted network and check it against its manifest.

        Raises:
            InvalidModel: if it cannot be loaded, or has another input or class count.
        """
        self._shape = (manifest.input.height, manifest.input.width, 3)
        self._session = _open(path, threads)
        (self._input,) = [item.name for item in self._session.get_inputs()]
        self._check(len(manifest.classes))

    def warm_up(self) -> None:
        """Run once, so that no job pays for the first allocation."""
        self._run(np.zeros((LARGEST_BATCH, *self._shape), np.uint8))

    def predict(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return logits of shape (n, classes) and pooled features of shape (n, features), both float32.

        `batch` has shape (n, height, width, 3), values 0 to 255; n is 1 or more.

        Raises:
            ValueError: if the batch has another shape or type.
        """
        if batch.shape[1:] != self._shape or batch.dtype != np.uint8 or not len(batch):
            raise ValueError(f"Expected uint8 (n, *{self._shape}). Received: {batch.dtype} {batch.shape}")
        starts = range(0, len(batch), LARGEST_BATCH)
        parts = [self._run(batch[start : start + LARGEST_BATCH]) for start in starts]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _run(self, batch: NDArray[np.uint8]) -> Outputs:
        logits, features = self._session.run(None, {self._input: batch.astype(np.float32)})
        return logits, features

    def _check(self, classes: int) -> None:
        try:
            logits, features = self._run(np.zeros((1, *self._shape), np.uint8))
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
