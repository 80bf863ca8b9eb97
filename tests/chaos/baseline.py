"""What plain Celery on Redis loses under such faults, with every setting that its documentation offers.

    python -m tests.chaos.baseline [SECONDS [SEED]]

Late acknowledgement, rejection when a worker is lost, a result backend, no prefetching, a short visibility
timeout, Redis with every write on disk: and workers and Redis are killed as in `test_chaos.py`.
"""

import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from celery import Celery
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from redis import RedisError

from ops.processes import Child, wait_until
from ops.servers import RedisServer, free_port
from tests.chaos import report
from tests.chaos.nursery import Nursery

WORKERS = 2
CLIENTS = 4
MILLISECONDS_A_TASK = 4
#: From the last fault to when a result that is not there counts as lost: many times the visibility timeout.
DRAIN_SECONDS = 90.0
VISIBILITY_TIMEOUT_SECONDS = 10

app = Celery("plain", broker=os.environ.get("PLAIN_REDIS_URL"), backend=os.environ.get("PLAIN_REDIS_URL"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
)


@app.task(name="plain.echo")  # type: ignore[untyped-decorator]
def echo(number: int) -> int:
    """Take as long as a tile does."""
    time.sleep(MILLISECONDS_A_TASK / 1000)
    return number


def submit_until(until: float, accepted: list[str], lock: threading.Lock) -> None:
    """Publish one task after the other; one whose publication raised does not count."""
    number = 0
    while time.monotonic() < until:
        number += 1
        try:
            result = echo.delay(number)
        except (OperationalError, RedisError, OSError):
            time.sleep(0.2)
            continue
        with lock:
            accepted.append(result.id)
        time.sleep(0.01)


def harm_until(until: float, nursery: Nursery, seed: int) -> Counter[str]:
    """Kill workers, their children and Redis, at random."""
    dice, done = random.Random(seed), Counter[str]()
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.5, 2.0))
        name, worker = (
            dice.choice(["worker", "worker", "child", "redis"]),
            f"worker-{dice.randrange(WORKERS)}",
        )
        done[name] += 1
        if name == "child":
            nursery.signal_below(worker, signal.SIGKILL)
        else:
            nursery.signal("redis" if name == "redis" else worker, signal.SIGKILL)
    return done


def count_lost(accepted: list[str], until: float) -> int:
    """Wait for every result until the time is over; return how many never came."""
    missing = set(accepted)
    while missing and time.monotonic() < until:
        for task_id in list(missing):
            try:
                if AsyncResult(task_id, app=app).ready():
                    missing.discard(task_id)
            except (RedisError, OSError):
                break
        time.sleep(0.5)
    return len(missing)


def main(seconds: float, seed: int) -> None:
    """Run the faults, and print what was lost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = RedisServer(free_port(), secrets.token_hex(8), folder / "redis")
        app.conf.update(broker_url=redis.url, result_backend=redis.url)
        environment = {**os.environ, "PLAIN_REDIS_URL": redis.url}
        command = [
            sys.executable,
            "-m",
            "celery",
            "--app",
            "tests.chaos.baseline",
            "worker",
            "--concurrency=2",
        ]
        children = {"redis": redis.child(folder / "logs/redis.log")}
        for number in range(WORKERS):
            worker = f"worker-{number}"
            children[worker] = Child(
                worker, [*command, f"--hostname={worker}"], folder / f"logs/{worker}.log", environment
            )
        children["redis"].start()
        with Nursery(folder, children) as nursery:
            assert wait_until(redis.is_ready, 20)
            assert echo.delay(0).get(timeout=60) == 0
            accepted, lock = [], threading.Lock()
            until = time.monotonic() + seconds
            clients = [
                threading.Thread(target=submit_until, args=(until, accepted, lock)) for _ in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            faults = harm_until(until, nursery, seed)
            for client in clients:
                client.join()
            lost = count_lost(accepted, time.monotonic() + DRAIN_SECONDS)
    figures = {
        "seconds under faults": round(seconds),
        "accepted": len(accepted),
        "terminal": len(accepted) - lost,
        "lost": lost,
        "faults": dict(faults),
    }
    report.publish(report.Figures("plain Celery", figures, seed=seed))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        float(arguments[0]) if arguments else 60.0,
        int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(10**6),
    )
