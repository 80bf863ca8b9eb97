"""Vary a batch as microscopes, stains and cameras do, from a seed, inside the training graph.

Strengths come from the experiment and stay moderate by default: heavy colour augmentation was measured to
cost accuracy on this data.
"""

import math
from typing import Any, Final

import numpy as np
import tensorflow as tf

from training.experiment import AugmentPlan

#: Optical densities of pure haematoxylin, eosin and what is left (Ruifrok and Johnston 2001), one a row.
_STAINS: Final = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
_UNMIX: Final = np.linalg.inv(_STAINS)
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
_BINOMIAL: Final = np.outer([1.0, 2.0, 1.0], [1.0, 2.0, 1.0]).astype(np.float32) / 16.0


def augment(batch: Any, plan: AugmentPlan, seed: Any) -> Any:
    """Return `batch`, a uint8 tensor (n, side, side, 3), varied: float32, values 0 to 255.

    `seed` is an int32 tensor of shape (2,); the same seed gives the same variation.
    """
    seeds = tf.random.split(seed, 8)
    values = turn(tf.cast(batch, tf.float32), seeds[0])
    if plan.zoom or plan.rotation:
        values = _move(values, plan, seeds[1])
    if plan.stain:
        values = _restain(values, plan.stain, seeds[2])
    if plan.colour or plan.contrast:
        values = _recolour(values, plan, seeds[3])
    if plan.grey:
        values = _drop_colour(values, plan.grey, seeds[4])
    if plan.blur:
        values = _refocus(values, plan.blur, seeds[5])
    if plan.noise:
        values = _add_noise(values, plan.noise, seeds[6])
    return tf.clip_by_value(values, 0.0, 255.0)


def mix(values: Any, targets: Any, strength: float, seed: Any) -> tuple[Any, Any]:
    """Blend each image, and its row of `targets` (n, classes), with those at the batch's other end."""
    share = tf.random.stateless_uniform((tf.shape(values)[0], 1), seed, 0.0, strength)
    images = values + share[:, :, tf.newaxis, tf.newaxis] * (tf.reverse(values, [0]) - values)
    return images, targets + share * (tf.reverse(targets, [0]) - targets)


def turn(values: Any, seed: Any) -> Any:
    """Return each image of a square batch in one of its eight flips and quarter turns."""
    choice = tf.random.stateless_uniform((tf.shape(values)[0], 3), seed) < 0.5
    flags = choice[:, :, tf.newaxis, tf.newaxis, tf.newaxis]
    values = tf.where(flags[:, 0], tf.reverse(values, [1]), values)
    values = tf.where(flags[:, 1], tf.reverse(values, [2]), values)
    return tf.where(flags[:, 2], tf.transpose(values, (0, 2, 1, 3)), values)


def _move(values: Any, plan: AugmentPlan, seed: Any) -> Any:
    """Scale and rotate each image about a random point; what lies outside is mirrored in."""
    count, side = tf.shape(values)[0], tf.cast(tf.shape(values)[1], tf.float32)
    random = tf.random.stateless_uniform((4, count), seed)
    # The logarithm of the scale is drawn evenly, so that twice as large is as likely as half as large.
    scale = tf.exp(math.log1p(plan.zoom) * (2.0 * random[0] - 1.0))
    angle = math.radians(plan.rotation) * (2.0 * random[1] - 1.0)
    cosine, sine = scale * tf.cos(angle), scale * tf.sin(angle)
    x, y = side * random[2], side * random[3]
    zeros = tf.zeros_like(scale)
    rows = [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y, zeros, zeros]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=values,
        transforms=tf.stack(rows, axis=1),
        output_shape=tf.shape(values)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def _restain(values: Any, strength: float, seed: Any) -> Any:
    """Change how much of each stain an image took up, in optical density."""
    gains = _spread((tf.shape(values)[0], 3, 1), strength, seed)
    change = tf.matmul(_UNMIX[np.newaxis], gains * _STAINS[np.newaxis])
    density = -tf.math.log((values + 1.0) / 256.0)
    shape = tf.shape(density)
    mixed = tf.matmul(tf.reshape(density, (shape[0], -1, 3)), change)
    return 256.0 * tf.exp(-tf.reshape(mixed, shape)) - 1.0


def _recolour(values: Any, plan: AugmentPlan, seed: Any) -> Any:
    """Change contrast about the image's own mean, brightness, and each channel."""
    seeds = tf.random.split(seed, 3)
    count = tf.shape(values)[0]
    mean = tf.reduce_mean(values, axis=(1, 2), keepdims=True)
    contrast = _spread((count, 1, 1, 1), plan.contrast, seeds[0])
    gain = _spread((count, 1, 1, 1), plan.colour, seeds[1]) * _spread((count, 1, 1, 3), plan.colour, seeds[2])
    return (mean + (values - mean) * contrast) * gain


def _drop_colour(values: Any, share: float, seed: Any) -> Any:
    chosen = tf.random.stateless_uniform((tf.shape(values)[0], 1, 1, 1), seed) < share
    return tf.where(chosen, tf.reduce_sum(values * _LUMA, axis=3, keepdims=True), values)


def _refocus(values: Any, strength: float, seed: Any) -> Any:
    """Blend each image with a blurred copy of itself: towards it, or away from it to sharpen."""
    kernel = tf.tile(_BINOMIAL[:, :, np.newaxis, np.newaxis], (1, 1, 3, 1))
    padded = tf.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="SYMMETRIC")
    soft = tf.nn.depthwise_conv2d(padded, kernel, strides=(1, 1, 1, 1), padding="VALID")
    amount = tf.random.stateless_uniform((tf.shape(values)[0], 1, 1, 1), seed, -strength / 2, strength)
    return values + amount * (soft - values)


def _add_noise(values: Any, strongest: float, seed: Any) -> Any:
    seeds = tf.random.split(seed, 2)
    deviation = tf.random.stateless_uniform((tf.shape(values)[0], 1, 1, 1), seeds[0], 0.0, strongest)
    return values + deviation * tf.random.stateless_normal(tf.shape(values), seeds[1])


def _spread(shape: Any, strength: float, seed: Any) -> Any:
    return tf.random.stateless_uniform(shape, seed, 1.0 - strength, 1.0 + strength)
