"""How full micro-batches are: what a worker tells, class by class."""

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from benchmarks.micro_batches import classes, micro_batches, since
from ops.servers import HOST, free_port
from worker.metrics import BATCH_SIZE


def told(*sizes: int) -> str:
    """Return the metrics of a worker that has had micro-batches of these sizes."""
    registry = CollectorRegistry()
    histogram = Histogram(BATCH_SIZE._name, "x", buckets=BATCH_SIZE._upper_bounds[:-1], registry=registry)
    for size in sizes:
        histogram.observe(size)
    return generate_latest(registry).decode()


def test_each_class_is_counted_by_itself() -> None:
    """A histogram's own counts contain each other."""
    assert classes(told(1, 1, 3, 8, 8, 8)) == {1: 2, 2: 0, 4: 1, 8: 3, 16: 0, 32: 0, 64: 0}


def test_what_came_meanwhile_counts() -> None:
    """Not what was there before."""
    assert since(classes(told(1, 8)), classes(told(1, 8, 8, 5, 2))) == {2: 1, 8: 2}


def test_a_system_that_tells_nothing_has_none() -> None:
    """A peer has no such address."""
    assert micro_batches(f"http://{HOST}:{free_port()}/metrics") == {}
