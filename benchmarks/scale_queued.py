"""Whether a long queue makes submitting slower, and what a queued job takes in Redis."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.broker import Broker
from benchmarks.figures import middle_ms
from shared.queue_order import place_of
from shared.schemas import Job
from worker.reaper import reap_once

#: How often a turn of the reaper and a look-up of a job's place are timed.
TURNS = 30
LOOK_UPS = 300


def measure(folder: Path, few: int, many: int, jobs: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield what filling took, a line for each round at each length of the queue, and what came of it.

    Each length has a Redis of its own, so that the two are measured in turns.
    """
    with ExitStack() as stack:
        short, long = (stack.enter_context(Broker(folder / name)) for name in ("few", "many"))
        yield filled(long, many)
        found: dict[int, list[dict[str, float]]] = {few: [], many: []}
        last: dict[int, list[Job]] = {}
        for number in range(rounds + 1):
            turns = ((few, short), (many, long))
            for queued, broker in turns if number % 2 else reversed(turns):
                if broker is short:
                    short.clear()
                    short.fill(few)
                figures, last[queued] = submission(broker, jobs)
                if number:  # the first is to warm up
                    found[queued].append(figures)
                    yield {"what": "submission", "queued": queued, "round": number, **figures}
        for queued, broker in ((few, short), (many, long)):
            yield {"what": "looks", "queued": queued, **looks(broker, last[queued])}
        yield {"what": "quotients", **quotients(found[few], found[many])}


def filled(broker: Broker, jobs: int) -> dict[str, Any]:
    """Fill the queue; return how fast that went and what a job takes in Redis."""
    before = broker.memory()["used_memory"]
    began = time.monotonic()
    broker.fill(jobs)
    seconds = time.monotonic() - began
    if broker.waiting() != jobs:
        raise RuntimeError(f"Expected {jobs} messages in the queue. Received: {broker.waiting()}")
    broker.settle()
    after = broker.memory()
    return {
        "what": "filled",
        "queued": jobs,
        "jobs_a_second": round(jobs / seconds),
        "redis_bytes_a_job": round((after["used_memory"] - before) / jobs),
        "redis_rss_mb": round(after["used_memory_rss"] / 1e6),
    }


def submission(broker: Broker, jobs: int) -> tuple[dict[str, float], list[Job]]:
    """Submit some; return the rate and what one cost Redis, and the jobs."""
    spent = broker.spent()
    began = time.monotonic()
    made = broker.submit(jobs)
    seconds = time.monotonic() - began
    return {"jobs_a_second": round(jobs / seconds, 1), **(broker.spent() - spent).a_job(jobs)}, made


def looks(broker: Broker, queued: list[Job]) -> dict[str, float]:
    """Return the middle of what the reaper's turns and the look-ups of a place took, in ms."""
    services = broker.services

    def reap() -> None:
        if published := reap_once(services.jobs, services.queue):
            raise RuntimeError(f"Expected nothing to be lost. Received: {published} published again")

    return {
        "reaper_turn_ms": middle_ms(reap, TURNS),
        "place_and_eta_ms": middle_ms(lambda: place_of(services.jobs.get(queued[-1].id)), LOOK_UPS),
    }


def quotients(few: list[dict[str, float]], many: list[dict[str, float]]) -> dict[str, float]:
    """Return many over few: of the rates' middles and bests, and of what a submission cost Redis."""

    def of(name: str, choose: Callable[[list[float]], float]) -> float:
        return round(choose([item[name] for item in many]) / choose([item[name] for item in few]), 3)

    return {
        "rate_median": of("jobs_a_second", median),
        "rate_best": of("jobs_a_second", max),
        "redis_cpu_median": of("cpu_ms", median),
        "redis_cpu_best": of("cpu_ms", min),
    }
