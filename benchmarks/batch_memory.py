"""What a large batch takes in Redis and in the API: `python -m benchmarks.batch_memory [ITEMS]`.

Sends one archive of ITEMS tiles (10,000 unless given) to a server without workers, so that all of them are
queued; tells Redis' bytes a job (record, indexes, batch and message), the API's resident memory in MB before
and at the most, and items a second.
"""

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import psutil
import redis

from benchmarks.arguments import read_numbers
from ops.prepare import newest_bundled_model
from ops.processes import wait_until
from ops.servers import HOST, RedisServer, free_port, port_is_free
from shared import keys
from shared.model_registry import ModelRegistry
from shared.object_store_files import FileObjectStore
from tests.factories import png_bytes

ROOT = Path(__file__).resolve().parents[1]
#: As much as a tile of 224 px in JPEG has.
TILE_BYTES = 12_000
#: A server that has done something before: what is loaded and pooled once does not count.
FIRST_ITEMS = 200


def main(items: int) -> None:
    """Start the servers, send the batch and print what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        server = RedisServer(free_port(), "password", folder / "redis", memory="0")
        child = server.child(folder / "redis.log")
        child.start()
        assert wait_until(server.is_ready, 20)
        store = FileObjectStore(folder / "objects", "histoqueue")
        store.ensure_bucket()
        ModelRegistry(store, "lung-cnn").publish(newest_bundled_model())
        api = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--config", "python:api.gunicorn_conf"),
                *("--bind", f"{HOST}:{port}", "api.wsgi:app"),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "REDIS_URL": server.url,
                "OBJECT_STORE_DIR": str(folder / "objects"),
                "S3_ENDPOINT_URL": "",
                "MAX_OPEN_JOBS": str(2 * items + FIRST_ITEMS),
                "MAX_BATCH_ITEMS": str(items),
                "MAX_BATCH_BYTES": str(items * (TILE_BYTES + 2000) + 1_000_000),
                "LOG_LEVEL": "WARNING",
            },
        )
        try:
            assert wait_until(lambda: not port_is_free(port), 30)
            with redis.Redis.from_url(server.url, decode_responses=True) as client:
                print(json.dumps({"items": items, **measure(folder, port, api.pid, client, items)}))
        finally:
            api.terminate()
            api.wait(20)
            child.stop(20)


def measure(folder: Path, port: int, pid: int, client: redis.Redis, items: int) -> dict[str, object]:
    """Send a small batch and the large one; return what the large one took."""
    send(port, archive(folder / "first.zip", FIRST_ITEMS, "first"))
    large = archive(folder / "large.zip", items, "large")
    process = psutil.Process(pid).children()[0]
    before, used = process.memory_info().rss, memory_of(client)
    peak, is_over = [before], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    accepted = send(port, large)
    seconds = time.monotonic() - began
    is_over.set()
    watcher.join()
    assert accepted == items, accepted
    assert client.llen(keys.BULK_QUEUE) == items + FIRST_ITEMS
    queue = int(client.memory_usage(keys.BULK_QUEUE, samples=0) or 0)
    return {
        "redis_bytes_a_job": round((memory_of(client) - used) / items),
        "of_these_the_message": round(queue / (items + FIRST_ITEMS)),
        "api_mb_before": round(before / 1e6, 1),
        "api_mb_at_most": round(peak[0] / 1e6, 1),
        "archive_mb": round(large.stat().st_size / 1e6, 1),
        "items_a_second": round(items / seconds),
    }


def memory_of(client: redis.Redis) -> int:
    """Return the bytes that Redis uses, all told."""
    return int(client.info("memory")["used_memory"])


def archive(path: Path, items: int, name: str) -> Path:
    """Write a zip of so many tiles, no two alike, in folders of a thousand."""
    tile = png_bytes(224, 224)
    with zipfile.ZipFile(path, "w") as made:
        for number in range(items):
            body = (tile + b"%s %d" % (name.encode(), number)).ljust(TILE_BYTES, b"\0")
            made.writestr(f"{name}/{number // 1000:04}/x{number % 1000 * 224}_y0.png", body)
    return path


def send(port: int, path: Path) -> int:
    """Submit an archive, from the disk; return how many of its items were accepted."""
    connection = http.client.HTTPConnection(HOST, port, timeout=900)
    with path.open("rb") as body:
        headers = {"Content-Type": "application/zip", "Content-Length": str(path.stat().st_size)}
        connection.request("POST", "/batches", body, headers)
        answer = connection.getresponse()
        text = answer.read()
    connection.close()
    assert answer.status == 202, text[:500]
    return int(json.loads(text)["accepted"])


if __name__ == "__main__":
    main(*read_numbers("batch_memory", __doc__, items=10_000))
