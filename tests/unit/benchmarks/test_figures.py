import math

import pytest

from benchmarks.figures import latency, middle, percentile, ratio, spread


def test_a_percentile_is_one_of_the_values() -> None:
    """The smallest that enough of the values do not exceed, in any order of the input."""
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]


def test_one_value_is_every_percentile() -> None:
    """A single answer has a latency."""
    assert {percentile([7.0], share) for share in (0.0, 0.5, 0.99, 1.0)} == {7.0}


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    """So is a share that is none."""
    with pytest.raises(ValueError, match="Expected values"):
        percentile(values, share)


def test_latencies_are_given_in_milliseconds() -> None:
    """They are measured in seconds."""
    found = latency([0.001, 0.002, 0.1])
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (2, 100, 100)


def test_one_slow_round_does_not_move_the_middle() -> None:
    """That is why it is the median; how far rounds differ is told apart."""
    assert middle([10, 11, 2]) == 10
    assert spread([10, 11, 2]) == pytest.approx(0.9)
    assert spread([5]) == 0


def test_a_ratio_to_nothing_is_no_number() -> None:
    """A peer that failed gives no ratio."""
    assert ratio(6, 3) == 2
    assert math.isnan(ratio(6, 0))
