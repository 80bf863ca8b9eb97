"""What a run's measurements amount to: percentiles, middles over rounds, ratios."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the moment at which a tile was due to be sent to its result being known."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed.

    Raises:
        ValueError: if there is no value, or the share is outside 0 to 1.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError(f"Expected values and a share of 0 to 1. Received: {len(values)} values, {share}")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency(seconds: Sequence[float]) -> Latency:
    """Return the percentiles of latencies given in seconds."""
    return Latency(*(round(percentile(seconds, share) * 1000, 2) for share in (0.5, 0.95, 0.99)))


def middle(values: Sequence[float]) -> float:
    """Return the median over rounds."""
    return float(median(values))


def spread(values: Sequence[float]) -> float:
    """Return how far rounds differ: largest minus smallest, over the median; 0 for one round."""
    centre = middle(values)
    return (max(values) - min(values)) / centre if centre else 0.0


def ratio(value: float, other: float) -> float:
    """Return value over other; NaN where there is nothing to compare with."""
    return value / other if other else math.nan


def middle_ms(call: Callable[[], object], times: int) -> float:
    """Return the median of what a call takes, in ms."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return round(1000 * median(seconds), 2)
