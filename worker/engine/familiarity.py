"""Measure how far an image lies from the training tiles in the network's own features.

Colours and sharpness see what the camera saw; this sees what the network made of it.
"""

import numpy as np
from numpy.typing import NDArray

from shared.manifest import FeatureStatistics


class Familiarity:
    """One version's statistics, ready for many micro-batches."""

    def __init__(self, statistics: FeatureStatistics) -> None:
        self._projection = np.array(statistics.projection)
        self._centres = np.array(statistics.centres)

    def distances(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the Mahalanobis distance of features (n, features) to the nearest class, shape (n,)."""
        along = features.astype(np.float64) @ self._projection.T
        offsets = along[:, np.newaxis, :] - self._centres
        distances: NDArray[np.float64] = np.sqrt((offsets**2).sum(axis=2)).min(axis=1)
        return distances
