"""The same network for every peer: bytes of a tile to calibrated probabilities, without any of our own code.

Read from the environment: `BENCH_MODEL`, a version's folder, and `BENCH_THREADS`, TensorFlow's threads.
"""

import json
import math
import os
from io import BytesIO
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from limits import LARGEST
from PIL import Image

#: Sizes that are traced before the first request; those between are padded.
BUCKETS = (1, 2, 4, LARGEST)


class Network:
    """One loaded model; `predict` is a traced function, `predict_slowly` what tutorials write."""

    def __init__(self) -> None:
        threads = int(os.environ.get("BENCH_THREADS", "0"))
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1 if threads else 0)
        folder = Path(os.environ["BENCH_MODEL"])
        facts = json.loads((folder / "manifest.json").read_text())
        self._temperature = facts["temperature"]
        self._side = (facts["input"]["width"], facts["input"]["height"])
        self._filter = getattr(Image.Resampling, facts["input"]["resample"].upper())
        # As the manifest has it decoded: a JPEG reduced, but to no less than this.
        gap = facts["input"].get("draft")
        self._least = (math.ceil(gap * max(224, *self._side)),) * 2 if gap else None
        archive = keras.models.load_model(folder / facts["weights"], compile=False)
        self._model = keras.Model(archive.inputs, archive.get_layer(facts["logits_layer"]).output)
        self._forward = tf.function(lambda batch: self._model(tf.cast(batch, tf.float32), training=False))

    def warm_up(self) -> "Network":
        """Trace every bucket."""
        for size in BUCKETS:
            self.predict(np.zeros((size, self._side[1], self._side[0], 3), np.uint8))
        return self

    def prepare(self, image: bytes) -> np.ndarray:
        """Decode and resize one tile: uint8 of shape (height, width, 3)."""
        picture = Image.open(BytesIO(image))
        if self._least:
            picture.draft(None, self._least)
        return np.asarray(picture.convert("RGB").resize(self._side, self._filter))

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities (n, classes) of at most `LARGEST` prepared tiles."""
        size = next(bucket for bucket in BUCKETS if bucket >= len(batch))
        padding = np.zeros((size - len(batch), *batch.shape[1:]), np.uint8)
        return self._calibrate(self._forward(tf.constant(np.concatenate([batch, padding]))).numpy())[
            : len(batch)
        ]

    def predict_slowly(self, batch: np.ndarray) -> np.ndarray:
        """Return the same by `model.predict`."""
        return self._calibrate(self._model.predict(batch.astype(np.float32), verbose=0))

    def answer(self, images: list[bytes]) -> list[list[float]]:
        """Return the probabilities of encoded tiles."""
        return self.predict(np.stack([self.prepare(image) for image in images])).tolist()

    def _calibrate(self, logits: np.ndarray) -> np.ndarray:
        scaled = logits.astype(np.float64) / self._temperature
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)
