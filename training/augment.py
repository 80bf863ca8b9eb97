"""Vary a batch as microscopes, stains and cameras do, from a seed, inside the compiled step of any backend.

Strengths come from the experiment and stay moderate by default: heavy colour augmentation was measured to
cost accuracy on this data.

`seed` is a `keras.random.SeedGenerator` everywhere: its state moves with each draw, and is kept with a run.
"""

import math
from typing import Any, Final

import numpy as np
from keras import ops, random

from training.experiment import AugmentPlan

#: Optical densities of pure haematoxylin, eosin and what is left (Ruifrok and Johnston 2001), one a row.
_STAINS: Final = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
_UNMIX: Final = np.linalg.inv(_STAINS)
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def augment(batch: Any, plan: AugmentPlan, seed: Any) -> Any:
    """Return `batch`, a uint8 tensor (n, side, side, 3), varied: float32, values 0 to 255."""
    values = turn(ops.cast(batch, "float32"), seed)
    if plan.zoom or plan.rotation:
        values = _move(values, plan, seed)
    if plan.stain:
        values = _restain(values, plan.stain, seed)
    if plan.colour or plan.contrast:
        values = _recolour(values, plan, seed)
    if plan.grey:
        values = _drop_colour(values, plan.grey, seed)
    if plan.blur:
        values = _refocus(values, plan.blur, seed)
    if plan.noise:
        values = _add_noise(values, plan.noise, seed)
    return ops.clip(values, 0.0, 255.0)


def mix(values: Any, targets: Any, strength: float, seed: Any) -> tuple[Any, Any]:
    """Blend each image, and its row of `targets` (n, classes), with those at the batch's other end."""
    share = _draw(values, (1,), 0.0, strength, seed)
    images = values + share[:, :, None, None] * (ops.flip(values, 0) - values)
    return images, targets + share * (ops.flip(targets, 0) - targets)


def turn(values: Any, seed: Any) -> Any:
    """Return each image of a square batch in one of its eight flips and quarter turns."""
    flags = _draw(values, (3, 1, 1, 1), 0.0, 1.0, seed) < 0.5
    values = ops.where(flags[:, 0], ops.flip(values, 1), values)
    values = ops.where(flags[:, 1], ops.flip(values, 2), values)
    return ops.where(flags[:, 2], ops.transpose(values, (0, 2, 1, 3)), values)


def _move(values: Any, plan: AugmentPlan, seed: Any) -> Any:
    """Scale and rotate each image about a random point; what lies outside is mirrored in."""
    side = values.shape[1]
    drawn = _draw(values, (4,), 0.0, 1.0, seed)
    # The logarithm of the scale is drawn evenly, so that twice as large is as likely as half as large.
    scale = ops.exp(math.log1p(plan.zoom) * (2.0 * drawn[:, 0] - 1.0))
    angle = math.radians(plan.rotation) * (2.0 * drawn[:, 1] - 1.0)
    cosine, sine = scale * ops.cos(angle), scale * ops.sin(angle)
    x, y = side * drawn[:, 2], side * drawn[:, 3]
    zeros = ops.zeros_like(scale)
    rows = [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y, zeros, zeros]
    return ops.image.affine_transform(
        values,
        ops.stack(rows, axis=1),
        interpolation="bilinear",
        fill_mode="reflect",
        data_format="channels_last",
    )


def _restain(values: Any, strength: float, seed: Any) -> Any:
    """Change how much of each stain an image took up, in optical density."""
    gains = _draw(values, (3, 1), 1.0 - strength, 1.0 + strength, seed)
    change = ops.matmul(_UNMIX[np.newaxis], gains * _STAINS[np.newaxis])
    density = -ops.log((values + 1.0) / 256.0)
    mixed = ops.matmul(ops.reshape(density, (-1, math.prod(values.shape[1:3]), 3)), change)
    return 256.0 * ops.exp(-ops.reshape(mixed, (-1, *values.shape[1:]))) - 1.0


def _recolour(values: Any, plan: AugmentPlan, seed: Any) -> Any:
    """Change contrast about the image's own mean, brightness, and each channel."""
    mean = ops.mean(values, axis=(1, 2), keepdims=True)
    contrast = _draw(values, (1, 1, 1), 1.0 - plan.contrast, 1.0 + plan.contrast, seed)
    brightness = _draw(values, (1, 1, 1), 1.0 - plan.colour, 1.0 + plan.colour, seed)
    channels = _draw(values, (1, 1, 3), 1.0 - plan.colour, 1.0 + plan.colour, seed)
    return (mean + (values - mean) * contrast) * brightness * channels


def _drop_colour(values: Any, share: float, seed: Any) -> Any:
    chosen = _draw(values, (1, 1, 1), 0.0, 1.0, seed) < share
    return ops.where(chosen, ops.sum(values * _LUMA, axis=3, keepdims=True), values)


def _refocus(values: Any, strength: float, seed: Any) -> Any:
    """Blend each image with a blurred copy of itself: towards it, or away from it to sharpen."""
    padded = ops.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    rows = padded[:, :-2] + 2.0 * padded[:, 1:-1] + padded[:, 2:]
    soft = (rows[:, :, :-2] + 2.0 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16.0
    amount = _draw(values, (1, 1, 1), -strength / 2, strength, seed)
    return values + amount * (soft - values)


def _add_noise(values: Any, strongest: float, seed: Any) -> Any:
    deviation = _draw(values, (1, 1, 1), 0.0, strongest, seed)
    return values + deviation * random.normal(ops.shape(values), seed=seed)


def _draw(values: Any, shape: tuple[int, ...], low: float, high: float, seed: Any) -> Any:
    """Return even random numbers between two bounds, of this shape for each image of the batch."""
    return random.uniform((ops.shape(values)[0], *shape), low, high, seed=seed)
