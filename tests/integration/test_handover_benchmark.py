"""`python -m benchmarks.handover`: both ways hand over every byte, and are measured."""

from collections.abc import Callable

import pytest

from benchmarks.handover import by_pipe, by_shared_memory

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("way", [by_pipe, by_shared_memory])
def test_a_way_to_the_engine_is_measured(way: Callable[[int, float], dict[str, float]]) -> None:
    """What does not arrive whole is an error, and no figure."""
    found = way(10_000, 0.2)
    assert 0 < found["cpu_us_an_image"] < 1e6
    assert 0 < found["ms_a_micro_batch"] < 1e5
