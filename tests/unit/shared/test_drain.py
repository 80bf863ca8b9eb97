"""What counts as the last minute, to the millisecond: the contract's tests allow for a server's own clock."""

from shared.drain import busy_ms, by_interval, first_recent

#: Five seconds into an interval.
NOW = 1_000_005_000
INTERVAL = NOW // 10_000


def test_six_intervals_are_the_last_minute() -> None:
    """The one that has begun, and five whole ones before it."""
    assert first_recent(NOW) == INTERVAL - 5


def test_a_period_lies_in_the_intervals_that_it_touches() -> None:
    """Three seconds of the one before, and five of this one."""
    assert by_interval(NOW - 8_000, NOW) == {INTERVAL - 1: 3_000, INTERVAL: 5_000}


def test_of_a_long_period_the_last_minute_is_noted() -> None:
    """From its first interval on, and not the one before."""
    noted = by_interval(NOW - 3_600_000, NOW)
    assert noted == {**dict.fromkeys(range(INTERVAL - 5, INTERVAL), 10_000), INTERVAL: 5_000}


def test_what_was_noted_before_the_last_minute_does_not_count() -> None:
    """Its oldest interval does."""
    assert busy_ms({INTERVAL - 6: 1_000, INTERVAL - 5: 200, INTERVAL: 30}, None, NOW) == 230


def test_an_open_period_counts_from_its_begin_or_that_of_the_minute() -> None:
    """What is noted is added to it."""
    assert busy_ms({INTERVAL - 2: 400}, NOW - 2_000, NOW) == 2_400
    assert busy_ms({}, NOW - 3_600_000, NOW) == 55_000


def test_a_period_that_begins_after_the_estimated_time_takes_nothing_away() -> None:
    """The ledger's time is an estimate where this is asked."""
    assert busy_ms({INTERVAL: 400}, NOW + 70, NOW) == 400
