"""Turn logits into probabilities that mean what they say, and those into a verdict."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["classified", "indeterminate"]


@dataclass(frozen=True)
class Judgement:
    """What one row of probabilities amounts to."""

    #: Index of the likeliest class, in the manifest's order.
    index: int
    #: Its calibrated probability.
    confidence: float
    verdict: Verdict


def calibrate(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return class probabilities of the shape of `logits` (images, classes), each row summing to 1.

    A temperature above 1 softens an overconfident model. `training.calibrate` fits it on clusters that
    training never saw; the model's manifest carries it here. Rows that are not finite stay so.

    Raises:
        ValueError: if the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"Expected a positive temperature. Received: {temperature}")
    scaled = logits.astype(np.float64) / temperature
    with np.errstate(invalid="ignore"):  # inf - inf: the caller looks for non-finite rows
        scaled -= scaled.max(axis=1, keepdims=True)  # exp() of a large logit would overflow
        weights = np.exp(scaled)
        probabilities: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def judge(probabilities: NDArray[np.float64], indeterminate_below: float) -> Judgement:
    """Return the verdict on one image's probabilities, shape (classes,).

    A confidence of exactly `indeterminate_below` is still `classified`.
    """
    index = int(probabilities.argmax())
    confidence = float(probabilities[index])
    verdict: Verdict = "indeterminate" if confidence < indeterminate_below else "classified"
    return Judgement(index, confidence, verdict)
