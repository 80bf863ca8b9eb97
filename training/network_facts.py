"""How large and how fast a finished network is, and what it was made with."""

import platform
from importlib import import_module
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import keras
import numpy as np

from training.architecture import count_multiply_accumulates
from training.inference import build_forward

_PACKAGES: Final = ("keras", "numpy", "pillow", "scikit-learn")
_REPEATS: Final = 20
_LARGEST_BATCH: Final = 16

Facts = dict[str, float | int | str]


def network_facts(path: Path) -> Facts:
    """Return size, work and latency of a network on this machine; latency is the fastest of some repeats."""
    network = keras.models.load_model(path, compile=False)
    return {
        "parameters": int(network.count_params()),
        "multiply_accumulates": count_multiply_accumulates(network),
        "weights_bytes": path.stat().st_size,
        "milliseconds_one_tile": round(_latency(network, 1), 2),
        "milliseconds_a_tile_of_sixteen": round(_latency(network, _LARGEST_BATCH) / _LARGEST_BATCH, 2),
        "cpu_cores": cpu_count() or 1,
    }


def software_facts() -> Facts:
    """Return the versions that the figures were made with; the last one is that of Keras's backend."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        # Not the package's: TensorFlow's has one of several names.
        backend: import_module(backend).__version__,
    }


def _latency(network: Any, batch_size: int) -> float:
    """Return the milliseconds of one forward pass, on as many threads as the backend takes."""
    batch = np.zeros((batch_size, *network.input_shape[1:]), np.uint8)
    forward = build_forward(network, batch_size)
    forward(batch)  # compiles
    times = []
    for _ in range(_REPEATS):
        started = perf_counter()
        forward(batch)
        times.append(perf_counter() - started)
    return min(times) * 1000
