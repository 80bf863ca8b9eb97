"""When different jobs end the engine one after the other, no more are taken for a while."""

from worker.breaker import MOST_CRASHES, REST_SECONDS, CrashBreaker


class Clock:
    """Seconds that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_different_jobs_in_a_row_open_it() -> None:
    """It is the engine that is ill."""
    breaker = CrashBreaker(Clock())
    for number in range(MOST_CRASHES):
        assert not breaker.is_open
        breaker.crashed(f"job {number}")
    assert breaker.is_open


def test_one_job_alone_does_not() -> None:
    """However often: it will be poison before long."""
    breaker = CrashBreaker(Clock())
    for _ in range(MOST_CRASHES * 2):
        breaker.crashed("job")
    assert not breaker.is_open


def test_an_outcome_in_between_begins_the_count_anew() -> None:
    """An engine that can do the others is well."""
    breaker = CrashBreaker(Clock())
    for number in range(MOST_CRASHES * 2):
        breaker.crashed(f"job {number}")
        breaker.worked()
    assert not breaker.is_open


def test_it_closes_by_itself_and_opens_again_at_the_next_crash() -> None:
    """Until the engine has shown that it works."""
    clock = Clock()
    breaker = CrashBreaker(clock)
    for number in range(MOST_CRASHES):
        breaker.crashed(f"job {number}")
    clock.now += REST_SECONDS
    assert not breaker.is_open
    breaker.crashed("another")
    assert breaker.is_open
    clock.now += REST_SECONDS
    breaker.worked()
    breaker.crashed("one more")
    assert not breaker.is_open
