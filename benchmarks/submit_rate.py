"""How busy the client keeps a worker: `python -m benchmarks.submit_rate [FILES] [ROUNDS]`.

Starts the whole system on this machine, and lets FILES tiles (600 unless given) through it in two ways, in
turns: fed straight to the object store, the ledger and the queue, and by `histoqueue submit`. Prints tiles a
second of each round and the quotient of the medians.
"""

import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.arguments import read_numbers
from shared.object_store import Patience
from shared.schemas import InputInfo, JobSpec, NewJob, new_job_id
from shared.services import Services, from_settings
from shared.settings import Settings
from tests.stack import ROOT, Stack, png

FEEDERS = 8
WARM_UP = 64


def main(files: int, rounds: int) -> None:
    """Measure both ways in turns, and print what came of it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        system = stack.enter_context(Stack(folder / "system"))
        services = services_of(system)
        tiles = make_tiles(folder / "tiles", files)
        feed(services, tiles[:WARM_UP])
        rates: dict[str, list[float]] = {"fed directly": [], "submitted": []}
        for number in range(rounds):
            rates["fed directly"].append(feed(services, tiles))
            rates["submitted"].append(submit(system, folder, number, files))
            print(json.dumps({name: [round(rate, 1) for rate in found] for name, found in rates.items()}))
        direct, submitted = (statistics.median(found) for found in rates.values())
        print(json.dumps({"files": files, "quotient": round(submitted / direct, 3)}))


def make_tiles(folder: Path, files: int) -> list[Path]:
    """Write tiles of 224 px: 40 drawn ones, again and again."""
    folder.mkdir()
    drawn = [png(seed) for seed in range(40)]
    paths = [folder / f"{number:05}.png" for number in range(files)]
    for number, path in enumerate(paths):
        path.write_bytes(drawn[number % len(drawn)])
    return paths


def services_of(system: Stack) -> Services:
    """Return the services that the system's own API has."""
    environment = psutil.Process(system.pid_of("api")).environ()
    places = ("AWS_", "S3_", "OBJECT_", "REDIS_")
    ours = {name: value for name, value in environment.items() if name.startswith(places)}
    os.environ.update(ours)
    return from_settings(Settings(), Patience(2, 5, 2), FEEDERS)


def feed(services: Services, tiles: list[Path]) -> float:
    """Do what the API does beside HTTP, from a few threads; return tiles a second up to the last end."""
    began = time.monotonic()
    with ThreadPoolExecutor(FEEDERS) as pool:
        list(pool.map(lambda path: accept(services, path.read_bytes()), tiles))
    while services.jobs.depth().open:
        time.sleep(0.02)
    return len(tiles) / (time.monotonic() - began)


def accept(services: Services, body: bytes) -> None:
    """Store one tile, record its job and publish it."""
    job_id, digest = new_job_id(), hashlib.sha256(body).hexdigest()
    image = InputInfo(
        key=f"uploads/{job_id}", sha256=digest, bytes=len(body), width=224, height=224, media_type="image/png"
    )
    new = NewJob(
        id=job_id,
        spec=JobSpec(model=services.models.live(), input=image),
        expires_in_seconds=3600,
        image_retention_seconds=3600,
        retention_seconds=3600,
        tombstone_seconds=3600,
    )
    services.objects.put(image.key, io.BytesIO(body), image.media_type)
    services.jobs.create(new, 100_000)


def submit(system: Stack, folder: Path, number: int, files: int) -> float:
    """Run the command over the folder, its start and its end included; return tiles a second."""
    command = [sys.executable, "-m", "histoqueue", "submit", "tiles", "--out", f"{number}.csv", "--quiet"]
    environment = {**os.environ, "HISTOQUEUE_URL": system.url, "PYTHONPATH": str(ROOT / "client")}
    began = time.monotonic()
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return files / (time.monotonic() - began)


if __name__ == "__main__":
    main(*read_numbers("submit_rate", __doc__, files=600, rounds=3))
