"""A Redis of our own with jobs in its ledger and its queue, and what they cost it."""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from pydantic import SecretStr

from ops.processes import wait_until
from ops.servers import RedisServer, free_port
from shared import keys
from shared.job_store_redis import connect
from shared.object_store import Patience
from shared.queue_order import place_of
from shared.schemas import InputInfo, Job, JobSpec, ModelRef, NewJob, new_job_id
from shared.services import from_settings
from shared.settings import Settings

#: Threads that submit at the same time.
FEEDERS = 8
#: Jobs that are recorded in one exchange while the queue is filled.
CHUNK = 500
MOST_OPEN = 10_000_000
#: What stands for a tile: as long as one of 224 px in JPEG.
TILE = b"tile " * 2400
MODEL = ModelRef(name="lung-cnn", version="1.0.0", sha256=hashlib.sha256(b"weights of 1.0.0").hexdigest())
Item = TypeVar("Item")


@dataclass(frozen=True)
class Spent:
    """What Redis' main thread has used, which carries out every command."""

    cpu_seconds: float
    #: With its waits for the disk, and for a core.
    busy_seconds: float

    def __sub__(self, earlier: "Spent") -> "Spent":
        return Spent(self.cpu_seconds - earlier.cpu_seconds, self.busy_seconds - earlier.busy_seconds)

    def a_job(self, jobs: int) -> dict[str, float]:
        """Return milliseconds a job."""
        return {
            "cpu_ms": round(1000 * self.cpu_seconds / jobs, 3),
            "busy_ms": round(1000 * self.busy_seconds / jobs, 3),
        }


class Broker:
    """A running Redis as `make up` starts it, and the services that reach it; objects lie in a folder."""

    def __init__(self, folder: Path) -> None:
        server = RedisServer(free_port(), secrets.token_hex(8), folder / "redis", memory="0")
        self.environment = {
            "REDIS_URL": server.url,
            "OBJECT_STORE_DIR": str(folder / "objects"),
            # The models lie in the folder, too, whatever this process was told.
            "S3_ENDPOINT_URL": "",
        }
        self._server = server
        self._child = server.child(folder / "redis.log")
        settings = Settings(
            redis_url=SecretStr(server.url),
            object_store_dir=self.environment["OBJECT_STORE_DIR"],
            s3_endpoint_url=None,
        )
        self.services = from_settings(settings, Patience(2, 5, 2), FEEDERS)
        #: For what no port gives.
        self.redis = connect(server.url, timeout_seconds=60)
        self._pool = ThreadPoolExecutor(FEEDERS)

    def __enter__(self) -> Self:
        self._child.start()
        if not wait_until(self._server.is_ready, 20):
            raise RuntimeError(self._child.log.read_text())
        self.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        self.redis.close()
        self._child.kill()

    def clear(self) -> None:
        """Drop all jobs; the ledger counts as founded and compared with the object store."""
        pipe = self.redis.pipeline(transaction=True)
        pipe.flushall()
        pipe.set(keys.FOUNDED, 1)
        pipe.set(keys.SWEPT, self.redis.info("server")["run_id"])
        pipe.execute()

    def spent(self) -> Spent:
        """Return what the main thread has used since it began."""
        facts: dict[str, Any] = {**self.redis.info("cpu"), **self.redis.info("stats")}
        cpu = sum(float(facts[f"used_cpu_{part}_main_thread"]) for part in ("user", "sys"))
        return Spent(cpu, float(facts["eventloop_duration_sum"]) / 1e6)

    def memory(self) -> dict[str, int]:
        """Return the bytes that Redis counts, and those that it holds of the machine's."""
        facts: dict[str, Any] = self.redis.info("memory")
        return {name: int(facts[name]) for name in ("used_memory", "used_memory_rss")}

    def submit(self, jobs: int) -> list[Job]:
        """Submit so many as the API does, one by one, from several threads."""
        create = self.services.jobs.create
        return list(self._pool.map(lambda _: create(new_job(), MOST_OPEN).job, range(jobs)))

    def each(self, call: Callable[[Item], object], items: Iterable[Item]) -> None:
        """Call it for each, from several threads."""
        list(self._pool.map(call, items))

    def look(self, job: Job) -> None:
        """Read a job once, with its place, as the API does for a status or a result."""
        place_of(self.services.jobs.get(job.id))

    def fill(self, jobs: int, image_key: str | None = None) -> None:
        """Queue so many, whole records and whole messages, in as few exchanges as will do."""

        def fill_some(first: int) -> None:
            news = [new_job(image_key) for _ in range(min(CHUNK, jobs - first))]
            made = [item for item in self.services.jobs.create_many(news, MOST_OPEN) if isinstance(item, Job)]
            if len(made) != len(news):
                raise RuntimeError(f"Expected {len(news)} jobs to be accepted. Received: {len(made)}")

        # One makes the next jobs while the other waits for the disk.
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fill_some, range(0, jobs, CHUNK)))

    def settle(self) -> None:
        """Have the log of writes rewritten now, so that it is not while something is measured."""
        self.redis.bgrewriteaof()
        time.sleep(0.2)  # it may be put off for a moment
        names = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
        if not wait_until(lambda: not any(self.redis.info("persistence")[name] for name in names), 300):
            raise RuntimeError("Expected the log of writes to be rewritten within 300 s.")

    def waiting(self) -> int:
        """Return how many messages are in the queue."""
        return int(self.redis.llen(keys.INFERENCE_QUEUE))


def new_job(image_key: str | None = None) -> NewJob:
    """Return a job as a submission makes it; `image_key`: all of them have the one image that lies there."""
    job_id = new_job_id()
    body = TILE if image_key else job_id.encode()
    image = InputInfo(
        key=image_key or f"uploads/{job_id}",
        sha256=hashlib.sha256(body).hexdigest(),
        bytes=len(TILE),
        width=224,
        height=224,
        media_type="image/jpeg",
    )
    return NewJob(
        id=job_id,
        spec=JobSpec(model=MODEL, input=image, request_id=str(uuid4())),
        expires_in_seconds=86_400,
        image_retention_seconds=86_400,
        retention_seconds=7 * 86_400,
        tombstone_seconds=7 * 86_400,
    )
