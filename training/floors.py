"""What can be scored without looking at tissue: colour, a corner, shuffled labels, a split that leaks.

The classes of LC25000 differ in stain and camera. A network is worth what it scores above its colours, so the
same folds score a softmax regression on colour numbers, which cannot see a nucleus.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.dataset import Images
from training.metrics import Labels

_HISTOGRAM_BINS: Final = 8
#: Side of the corner, as a share of the tile's: 20 of 224 pixels.
_CORNER: Final = 20 / 224
_SEED: Final = 1

Numbers = NDArray[np.float64]
#: From the training numbers and labels, and the test numbers, to the test classes.
Classifier = Callable[[Numbers, Labels, Numbers], Labels]


def measure_floors(
    images: Images, labels: Labels, groups: NDArray[np.int64], folds: NDArray[np.int64]
) -> dict[str, float]:
    """Return the mean accuracy over folds of each stand-in for a network, by name.

    `folds` is the fold that tests each tile. Those that end in `_leaky` deal tiles and not clusters out.
    """
    colours, histograms = images.measured[:, :6], colour_histograms(images.inputs)
    both, corner = np.hstack([colours, histograms]), corner_numbers(images.inputs)
    leaky = _deal_tiles(len(labels), int(folds.max()) + 1)
    shuffled = _shuffle_by_group(labels, groups)
    return {
        "colour_mean_sd": score(softmax_regression, colours, labels, folds),
        "colour_mean_sd_leaky": score(softmax_regression, colours, labels, leaky),
        "colour_histograms": score(softmax_regression, both, labels, folds),
        "colour_histograms_leaky": score(softmax_regression, both, labels, leaky),
        "nearest_neighbour": score(nearest_neighbour, both, labels, folds),
        "nearest_neighbour_leaky": score(nearest_neighbour, both, labels, leaky),
        "corner": score(softmax_regression, corner, labels, folds),
        "label_shuffle": score(softmax_regression, both, shuffled, folds),
        "label_shuffle_leaky": score(nearest_neighbour, both, shuffled, leaky),
    }


def score(classifier: Classifier, numbers: Numbers, labels: Labels, folds: NDArray[np.int64]) -> float:
    """Return the mean of the folds' accuracies."""
    shares = []
    for fold in np.unique(folds):
        test = folds == fold
        predicted = classifier(numbers[~test], labels[~test], numbers[test])
        shares.append(float((predicted == labels[test]).mean()))
    return float(np.mean(shares))


def softmax_regression(train: Numbers, labels: Labels, test: Numbers) -> Labels:
    """Return the classes of a linear model on standardised numbers."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=1e-3))
    predicted: Labels = model.fit(train, labels).predict(test)
    return predicted


def nearest_neighbour(train: Numbers, labels: Labels, test: Numbers) -> Labels:
    """Return the class of the most similar training tile: the purest way to profit from copies."""
    scaler = StandardScaler().fit(train)
    known, asked = scaler.transform(train), scaler.transform(test)
    half_squares = (known**2).sum(axis=1) / 2
    nearest: Sequence[NDArray[np.int64]] = [
        np.argmax(asked[start : start + 1000] @ known.T - half_squares, axis=1)
        for start in range(0, len(asked), 1000)
    ]
    return labels[np.concatenate(nearest)]


def colour_histograms(inputs: NDArray[np.uint8]) -> Numbers:
    """Return each channel's share of pixels in eight bins: shape (tiles, 24)."""
    rows = np.empty((len(inputs), 3 * _HISTOGRAM_BINS))
    for index, image in enumerate(inputs):
        for channel in range(3):
            counts = np.bincount(image[..., channel].ravel() >> 5, minlength=_HISTOGRAM_BINS)
            start = channel * _HISTOGRAM_BINS
            rows[index, start : start + _HISTOGRAM_BINS] = counts / counts.sum()
    return rows


def corner_numbers(inputs: NDArray[np.uint8]) -> Numbers:
    """Return mean and deviation of each channel in the upper left corner: shape (tiles, 6)."""
    side = max(2, round(inputs.shape[1] * _CORNER))
    corner = inputs[:, :side, :side].reshape(len(inputs), -1, 3).astype(np.float64)
    return np.hstack([corner.mean(axis=1), corner.std(axis=1)])


def _deal_tiles(count: int, folds: int) -> NDArray[np.int64]:
    """Return the fold of each tile in a split that puts copies on both sides."""
    return np.random.default_rng(_SEED).permutation(np.arange(count) % folds)


def _shuffle_by_group(labels: Labels, groups: NDArray[np.int64]) -> Labels:
    """Return labels that say nothing about a tile, but are the same for all its copies.

    A patient can have tiles of several classes, so what is dealt anew is one label for each class of a group.
    """
    units = groups * (int(labels.max()) + 1) + labels
    _, first, index = np.unique(units, return_index=True, return_inverse=True)
    shuffled: Labels = np.random.default_rng(_SEED).permutation(labels[first])[index]
    return shuffled
