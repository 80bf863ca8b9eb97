"""What every runtime takes and gives: a batch of tiles in, logits and features out."""

import numpy as np
from numpy.typing import NDArray

#: Logits of shape (n, classes), and pooled features of shape (n, features).
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


def check_batch(batch: NDArray[np.uint8], shape: tuple[int, int, int], fewest: int = 1) -> None:
    """Check that a batch is uint8 of shape (n, *`shape`), with at least `fewest` images.

    Raises:
        ValueError: if it is not.
    """
    if batch.shape[1:] != shape or batch.dtype != np.uint8 or len(batch) < fewest:
        raise ValueError(f"Expected uint8 (n, *{shape}). Received: {batch.dtype} {batch.shape}")
