"""How the work done grows with the number of workers whose engines only sleep, and what one Redis carries."""

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.broker import TILE, Broker, Spent
from benchmarks.figures import middle_ms
from benchmarks.processes import busy_seconds, name_of, tree
from ops.processes import Child, wait_until
from shared.model_registry import ModelRegistry
from shared.object_store_files import FileObjectStore
from shared.schemas import JobStatus
from tests.factories import write_model

IMAGE_KEY = "uploads/tile"
#: Thin workers that share a process, and with it the consumer that takes one message after the other.
THIN_A_PROCESS = 4
#: More jobs a second than these machines can do; the queue is filled for no more.
MOST_A_SECOND = 1_500
#: From the filling of the queue to the measurement.
SETTLE_SECONDS = 1.0
#: Messages that a worker takes ahead, and some more.
AHEAD = 32
SUBMITTED = 500
PROBES = 200


def measure(
    folder: Path, counts: Sequence[int], seconds: float, milliseconds: float, thin: bool
) -> Iterator[dict[str, Any]]:
    """Yield what submissions cost Redis, a line for each number of workers, and what Redis carries."""
    store = FileObjectStore(folder / "objects", "histoqueue")
    store.ensure_bucket()
    store.put(IMAGE_KEY, TILE, "image/jpeg")
    ModelRegistry(store, "lung-cnn").publish(write_model(folder / "model"))
    with Broker(folder) as broker, ExitStack() as stack:
        before_work = costs_before_work(broker)
        yield {**before_work, "disk_ms": disk_ms(folder / "probe")}
        running, found = 0, []
        for count in sorted(counts):
            for child in children(broker, folder, running, count, milliseconds, thin):
                stack.callback(child.kill)
                child.start()
            running = count
            found.append(line_of(broker, count, seconds, milliseconds))
            yield found[-1]
        most = max(found, key=lambda line: float(line["jobs_a_second"]))
        yield {"what": "one Redis carries", **carried(before_work, most["redis_ms_a_job"]["cpu_ms"])}


def costs_before_work(broker: Broker) -> dict[str, Any]:
    """Return what submissions cost Redis, and reading each job once on top."""
    broker.submit(SUBMITTED // 5)  # connections and scripts
    first = broker.spent()
    jobs = broker.submit(SUBMITTED)
    second = broker.spent()
    broker.each(broker.look, jobs)
    third = broker.spent()
    broker.clear()
    return {
        "what": "before the work",
        "submission": (second - first).a_job(SUBMITTED),
        "a_read": (third - second).a_job(SUBMITTED),
    }


def disk_ms(path: Path) -> float:
    """Return the median of what a small write takes until it is on the disk, in ms."""
    with path.open("ab", buffering=0) as file:

        def write() -> None:
            file.write(b"x" * 200)
            os.fdatasync(file.fileno())

        return middle_ms(write, PROBES)


def carried(before_work: dict[str, Any], work_ms: float) -> dict[str, float]:
    """Return what all commands of a job take of Redis' main thread, and how many a second would fill it."""
    parts = {name: before_work[name]["cpu_ms"] for name in ("submission", "a_read")}
    transitions = parts["submission"] + work_ms
    whole = transitions + parts["a_read"]
    return {
        "cpu_ms": round(transitions, 3),
        "jobs_a_second": round(1000 / transitions),
        "cpu_ms_with_a_read": round(whole, 3),
        "jobs_a_second_with_a_read": round(1000 / whole),
    }


def children(
    broker: Broker, folder: Path, running: int, count: int, milliseconds: float, thin: bool
) -> list[Child]:
    """Return the processes that make `count` workers of `running`."""
    environment = {
        **os.environ,
        **broker.environment,
        "MODEL_CACHE_DIR": str(folder / "model-cache"),
        "LOG_LEVEL": "WARNING",
        "TASK_EVENTS": "false",
    }
    command = [sys.executable, "-m", "tests.chaos.worker", "fake", str(milliseconds)]
    if not thin:
        return [
            Child("worker", command, folder / "logs" / f"worker-{number}.log", environment)
            for number in range(running, count)
        ]
    sizes = [min(THIN_A_PROCESS, count - first) for first in range(running, count, THIN_A_PROCESS)]
    return [
        Child(
            "thin",
            [sys.executable, "-m", "benchmarks.thin_worker", str(size), str(milliseconds)],
            folder / "logs" / f"thin-{running}-{number}.log",
            environment,
        )
        for number, size in enumerate(sizes)
    ]


def line_of(broker: Broker, count: int, seconds: float, milliseconds: float) -> dict[str, Any]:
    """Return what so many running workers do: first with nothing to do, then with more than they can."""
    broker.clear()
    if not wait_until(lambda: len(broker.services.workers.live()) == count, 60 + 5 * count, 0.2):
        raise RuntimeError(f"Expected {count} workers to report. Received: {broker.services.workers.live()}")
    idle = during(broker, min(seconds, 3))
    ideal = count * 1000 / milliseconds
    needed = round(min(ideal, MOST_A_SECOND) * (seconds + SETTLE_SECONDS)) + AHEAD * count
    # They work already while it is filled.
    while (missing := needed - broker.waiting()) > needed // 20:
        broker.fill(missing, IMAGE_KEY)
    time.sleep(SETTLE_SECONDS)
    busy = during(broker, seconds)
    if not broker.services.jobs.depth().open:
        raise RuntimeError("Expected jobs to be left. The workers were quicker than the queue was long.")
    return {
        "what": "workers",
        "workers": count,
        "of_ideal": round(busy.succeeded / busy.seconds / ideal, 3),
        **busy.figures(),
        "idle_cores": idle.cores,
    }


@dataclass(frozen=True)
class Stretch:
    """What was done in some seconds, and used for it."""

    seconds: float
    succeeded: int
    redis: Spent
    cpu_seconds: Mapping[str, float]
    machine_cpu_seconds: float

    @property
    def cores(self) -> dict[str, float]:
        """Cores in use, by process, and by others than ours."""
        ours = {name: round(used / self.seconds, 2) for name, used in self.cpu_seconds.items() if used}
        others = self.machine_cpu_seconds - sum(self.cpu_seconds.values())
        return {**ours, "others": round(max(0.0, others) / self.seconds, 2)}

    def figures(self) -> dict[str, Any]:
        """Return the rate and what a job took."""
        if not self.succeeded:
            raise RuntimeError("Expected jobs to succeed. None did.")
        return {
            "jobs_a_second": round(self.succeeded / self.seconds, 1),
            "core_ms_a_job": {
                name: round(1000 * used / self.succeeded, 2)
                for name, used in self.cpu_seconds.items()
                if used
            },
            "redis_ms_a_job": self.redis.a_job(self.succeeded),
            "redis_is_busy": round(self.redis.busy_seconds / self.seconds, 3),
            "cores": self.cores,
        }


def during(broker: Broker, seconds: float) -> Stretch:
    """Look on for so many seconds."""
    first = _looked(broker)
    time.sleep(seconds)
    last = _looked(broker)
    used = {name: cpu - first.cpu_seconds.get(name, 0.0) for name, cpu in last.cpu_seconds.items()}
    return Stretch(
        seconds=last.seconds - first.seconds,
        succeeded=last.succeeded - first.succeeded,
        redis=last.redis - first.redis,
        cpu_seconds=used,
        machine_cpu_seconds=last.machine_cpu_seconds - first.machine_cpu_seconds,
    )


def _looked(broker: Broker) -> Stretch:
    by_name: dict[str, float] = defaultdict(float)
    for usage in tree(os.getpid()):
        by_name[name_of(usage.pid)] += usage.cpu_seconds
    succeeded = broker.services.jobs.totals().ended[JobStatus.SUCCEEDED]
    return Stretch(time.monotonic(), succeeded, broker.spent(), by_name, busy_seconds())
