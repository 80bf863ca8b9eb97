"""The spread of training tiles in feature space makes a distance; unseen tiles make its threshold."""

import numpy as np
import pytest

from worker.engine.familiarity import Familiarity

pytestmark = pytest.mark.tensorflow

familiarity = pytest.importorskip("training.familiarity")

#: Classes far apart; along some features tiles vary twenty times as much as along others.
MEANS = np.array([[0.0] * 6, [30.0] * 6, [-30.0] * 6])
SPREAD = np.array([10.0, 5.0, 3.0, 2.0, 1.0, 0.5])
LABELS = np.arange(3000) % 3


def draw(seed: int, count: int = 3000) -> np.ndarray:
    """Return features about their class's mean."""
    noise = np.random.default_rng(seed).normal(0, 1, (count, 6))
    return (MEANS[LABELS[:count]] + noise * SPREAD).astype(np.float32)


def test_squared_distances_average_to_about_the_number_of_directions() -> None:
    """Every direction counts the same, however much its feature varies: that is Mahalanobis."""
    statistics = familiarity.fit_features(draw(1), LABELS)
    assert len(statistics.projection) == 6
    distances = Familiarity(statistics).distances(draw(2))
    # A hundredth of the mean variance is added to each, which narrow directions feel.
    expected = (SPREAD**2 / (SPREAD**2 + 0.01 * (SPREAD**2).mean())).sum()
    assert 5 < expected < 6
    assert (distances**2).mean() == pytest.approx(expected, rel=0.05)


def test_the_strongest_directions_are_the_ones_looked_along() -> None:
    """Of 40 features, the 32 along which tiles vary most."""
    random = np.random.default_rng(3)
    features = (random.normal(0, 1, (3000, 40)) * np.linspace(20, 1, 40)).astype(np.float32)
    statistics = familiarity.fit_features(features, LABELS)
    assert len(statistics.projection) == familiarity.DIRECTIONS == 32
    assert Familiarity(statistics).distances(np.eye(40, dtype=np.float32)[39:] * 5)[0] < 1


def test_one_in_a_hundred_unseen_tiles_is_over_the_threshold() -> None:
    """And nearly everything that is unlike them."""
    statistics = familiarity.fit_features(draw(1), LABELS)
    fitted = familiarity.with_distance(statistics, Familiarity(statistics).distances(draw(2)))
    distances = Familiarity(fitted).distances(draw(4))
    assert 0.003 < (distances > fitted.distance).mean() < 0.03
    strange = draw(5) + np.array([0, 0, 0, 0, 0, 12], np.float32)
    assert (Familiarity(fitted).distances(strange) > fitted.distance).mean() > 0.95


def test_a_feature_that_never_varies_does_no_harm() -> None:
    """A dead unit of the network."""
    features = draw(1)
    features[:, 5] = 7.0
    statistics = familiarity.fit_features(features, LABELS)
    assert np.isfinite(Familiarity(statistics).distances(features)).all()
