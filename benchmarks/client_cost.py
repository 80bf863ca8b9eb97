"""What a tile costs the client, and whether its memory grows: `python -m benchmarks.client_cost [FILES]`.

Runs `histoqueue submit` over FILES files (2,000 unless given) against a server that answers at once; tells
the client's CPU a file in milliseconds, its resident memory in MB, and files a second.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.arguments import read_numbers
from ops.processes import wait_until
from ops.servers import HOST, free_port, port_is_free

ROOT = Path(__file__).resolve().parents[1]
#: As much as a tile of 224 px in JPEG has.
TILE_BYTES = 12_000


def main(files: int) -> None:
    """Make the files, run the command and print what it took."""
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "tests.light_server", str(port)], cwd=ROOT)
    try:
        assert wait_until(lambda: not port_is_free(port), 20)
        with tempfile.TemporaryDirectory() as folder:
            make_tiles(Path(folder) / "tiles", files)
            print(json.dumps({"files": files, **measure(Path(folder), f"http://{HOST}:{port}")}))
    finally:
        server.kill()
        server.wait()


def make_tiles(folder: Path, files: int) -> None:
    """Write files that begin as a JPEG does, a thousand in a folder."""
    body = b"\xff\xd8\xff" + os.urandom(TILE_BYTES)
    for number in range(files):
        if number % 1000 == 0:
            below = folder / f"{number // 1000:04}"
            below.mkdir(parents=True)
        (below / f"x{number % 1000}_y{number // 1000}.jpeg").write_bytes(b"%s%d" % (body, number))


def measure(folder: Path, url: str) -> dict[str, float]:
    """Run the command; its whole life counts, its start and the writing of the files included."""
    command = [sys.executable, "-m", "histoqueue", "submit", "tiles", "--out", "results.csv", "--quiet"]
    environment = {**os.environ, "HISTOQUEUE_URL": url, "PYTHONPATH": str(ROOT / "client")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=environment)
    early, largest = 0, 0
    while process.poll() is None:
        try:
            largest = max(largest, psutil.Process(process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            break
        if time.monotonic() - began < 3:
            early = largest
        time.sleep(0.1)
    assert process.wait() == 0
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with (folder / "results.csv").open() as table:
        rows = sum(1 for _ in table) - 1
    return {
        "rows": rows,
        "cpu_ms_per_file": round(cpu / rows * 1000, 3),
        "files_per_second": round(rows / seconds, 1),
        "rss_mb_after_3_s": round(early / 1e6, 1),
        "rss_mb_largest": round(largest / 1e6, 1),
    }


if __name__ == "__main__":
    main(*read_numbers("client_cost", __doc__, files=2_000))
