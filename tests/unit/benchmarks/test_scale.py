import pytest

from benchmarks.broker import Spent
from benchmarks.scale_queued import quotients
from benchmarks.scale_workers import Stretch, carried


def test_what_one_redis_carries_follows_from_all_that_a_job_costs_it() -> None:
    """A submission of 0.2 ms and work of 0.3 ms fill a second 2,000 times; a read comes on top."""
    costs = {"submission": {"cpu_ms": 0.2}, "a_read": {"cpu_ms": 0.5}}
    assert carried(costs, 0.3) == {
        "cpu_ms": 0.5,
        "jobs_a_second": 2000,
        "cpu_ms_with_a_read": 1.0,
        "jobs_a_second_with_a_read": 1000,
    }


def test_a_long_queue_is_compared_with_a_short_one() -> None:
    """By the middle of the rounds and by the best: the highest rate, the lowest cost."""
    few = [{"jobs_a_second": rate, "cpu_ms": 0.2} for rate in (100.0, 200.0, 400.0)]
    many = [
        {"jobs_a_second": rate, "cpu_ms": cost} for rate, cost in ((90.0, 0.2), (100.0, 0.3), (380.0, 0.4))
    ]
    assert quotients(few, many) == {
        "rate_median": 0.5,
        "rate_best": 0.95,
        "redis_cpu_median": 1.5,
        "redis_cpu_best": 1.0,
    }


def test_what_a_stretch_of_work_cost_is_told_a_job_and_a_second() -> None:
    """What the machine did for others is no cost of a job."""
    stretch = Stretch(2.0, 100, Spent(0.04, 0.5), {"worker": 0.3, "redis": 0.1, "client": 0.0}, 1.0)
    assert stretch.figures() == {
        "jobs_a_second": 50.0,
        "core_ms_a_job": {"worker": 3.0, "redis": 1.0},
        "redis_ms_a_job": {"cpu_ms": 0.4, "busy_ms": 5.0},
        "redis_is_busy": 0.25,
        "cores": {"worker": 0.15, "redis": 0.05, "others": 0.3},
    }


def test_workers_that_do_nothing_are_no_measurement() -> None:
    """A rate of 0 would be the fault of the harness."""
    with pytest.raises(RuntimeError, match="None did"):
        Stretch(2.0, 0, Spent(0.0, 0.0), {}, 0.0).figures()
