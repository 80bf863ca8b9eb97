"""How full the engine's micro-batches are, by the metrics that a worker tells."""

from collections.abc import Mapping
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

_NAME = "histoqueue_worker_batch_size"


def micro_batches(url: str) -> dict[int, int]:
    """Return how many there were so far, by the largest size of each class; nothing where nobody tells."""
    try:
        with urlopen(url, timeout=5) as answer:
            return classes(answer.read().decode())
    except URLError:
        return {}


def classes(text: str) -> dict[int, int]:
    """Return a histogram's counts, class by class; in the text each holds all smaller ones as well."""
    bounds = {
        float(sample.labels["le"]): int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"{_NAME}_bucket"
    }
    found, below = {}, 0
    for bound in sorted(bounds)[:-1]:  # the last has no bound, and nothing in it
        found[int(bound)], below = bounds[bound] - below, bounds[bound]
    return found


def since(before: Mapping[int, int], now: Mapping[int, int]) -> dict[int, int]:
    """Return what was added meanwhile, without the classes that got nothing."""
    added = {size: count - before.get(size, 0) for size, count in now.items()}
    return {size: count for size, count in added.items() if count}
