"""The network's own features say how far an image lies from the training tiles."""

import numpy as np
import pytest
from pydantic import ValidationError

from shared.manifest import FeatureStatistics
from worker.engine.familiarity import Familiarity

#: Two classes; the first feature varies by 2, the second by 0.5, the third is not looked along.
STATISTICS = FeatureStatistics(
    projection=((0.5, 0.0, 0.0), (0.0, 2.0, 0.0)), centres=((0.0, 0.0), (5.0, 0.0)), distance=3.0
)


@pytest.mark.parametrize(
    ("features", "distance"),
    [
        ((0.0, 0.0, 0.0), 0.0),
        ((4.0, 0.0, 0.0), 2.0),
        ((0.0, 1.0, 0.0), 2.0),
        ((10.0, 0.0, 0.0), 0.0),
        ((16.0, 2.0, 0.0), 5.0),
        ((0.0, 0.0, 99.0), 0.0),
    ],
)
def test_the_distance_is_in_units_of_the_spread(features: tuple[float, ...], distance: float) -> None:
    """Known by hand: two along the wide direction count as one, and the nearest class counts."""
    (received,) = Familiarity(STATISTICS).distances(np.array([features], np.float32))
    assert received == pytest.approx(distance)


def test_each_row_has_its_own_distance() -> None:
    """Alone or in a micro-batch."""
    rows = np.random.default_rng(1).normal(0, 4, (7, 3)).astype(np.float32)
    familiarity = Familiarity(STATISTICS)
    alone = [familiarity.distances(row[np.newaxis])[0] for row in rows]
    np.testing.assert_allclose(familiarity.distances(rows), alone)


@pytest.mark.parametrize(
    ("projection", "centres", "reason"),
    [
        (((1.0, 0.0), (1.0,)), ((0.0, 0.0),), "directions of one length"),
        (((1.0, 0.0), (0.0, 1.0)), ((0.0,),), "centres of 2 values"),
    ],
)
def test_statistics_that_do_not_fit_together_are_refused(
    projection: tuple[tuple[float, ...], ...], centres: tuple[tuple[float, ...], ...], reason: str
) -> None:
    """Before an image meets them."""
    with pytest.raises(ValidationError, match=reason):
        FeatureStatistics(projection=projection, centres=centres, distance=1.0)
