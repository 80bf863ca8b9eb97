"""The main job on real servers: a tile in, its class out, whatever is sent and whatever dies."""

import io
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from PIL import Image

from api.gunicorn_worker import MOST_LINGERING_BYTES
from ops.processes import wait_until
from shared.schemas import new_job_id
from tests import factories
from tests.stack import Stack, png

pytestmark = [pytest.mark.integration, pytest.mark.tensorflow]

LOAD = 200


def submit_many(stack: Stack, count: int, meanwhile: Any) -> list[str]:
    """Submit tiles from eight threads and do something in the middle; return where the jobs are."""
    image = png(1)
    batch = new_job_id()

    def submit(number: int) -> str:
        if number == count // 4:
            meanwhile()
        for _ in range(100):
            answer = stack.submit(image, **{"Idempotency-Key": f"{batch}-{number}"})
            if answer.status_code in (200, 202):
                return str(answer.headers["Location"])
            assert answer.status_code in (429, 503), answer.text
            assert answer.headers["Retry-After"]
            time.sleep(0.3)
        raise AssertionError(f"never accepted\n{stack.story()}")

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(submit, range(count)))


def assert_none_is_lost(stack: Stack, paths: list[str]) -> None:
    """Every job that was accepted ends well, once."""
    assert len(set(paths)) == len(paths)
    jobs = [stack.finish(path, 120) for path in paths]
    failed = [job for job in jobs if job["status"] != "succeeded"]
    assert not failed, failed[:3]


def test_a_tile_goes_in_and_its_class_comes_out(stack: Stack, tile: bytes) -> None:
    """The contract's whole happy path: 202 with a place to look, then the job with its result."""
    accepted = stack.submit(tile)
    assert accepted.status_code == 202
    assert accepted.json()["status"] in ("queued", "running")
    assert int(accepted.headers["Retry-After"]) >= 1
    job = stack.finish(accepted.headers["Location"])
    assert job["status"] == "succeeded"
    assert job["attempt"] == 1
    result = job["result"]
    assert set(result["probabilities"]) == {"lung_n", "lung_aca", "lung_scc"}
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert result["confidence"] == max(result["probabilities"].values())
    assert job["model"]["name"] == "lung-cnn"
    assert set(job["timings_ms"]) == {"queue", "fetch", "decode", "inference"}


@pytest.mark.parametrize("name", ["lung_n", "lung_aca", "lung_scc"])
def test_real_tiles_get_their_right_class(stack: Stack, real_tiles: Path, name: str) -> None:
    """Twelve real tiles of each class, as their files are."""
    tiles = sorted((real_tiles / name).glob("*.jpeg"))[::300][:12]
    assert len(tiles) == 12
    paths = [stack.accept(tile.read_bytes()) for tile in tiles]
    found = [stack.finish(path)["result"]["class"] for path in paths]
    assert found.count(name) >= 11, found


def test_a_wait_is_answered_with_the_result(stack: Stack, tile: bytes) -> None:
    """One request is enough for who can wait."""
    answer = stack.submit(tile, Prefer="wait=20")
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert answer.json()["status"] == "succeeded"


def test_a_heat_map_can_be_asked_for(stack: Stack, tile: bytes) -> None:
    """A picture with the tile's shape, some of it in colour."""
    accepted = stack.client.post("/predict?explain=true", content=tile, headers={"Content-Type": "image/png"})
    job = stack.finish(accepted.headers["Location"])
    assert job["status"] == "succeeded"
    answer = stack.client.get(job["links"]["heatmap"])
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    picture = Image.open(io.BytesIO(answer.content))
    sent = Image.open(io.BytesIO(tile))
    assert picture.size == sent.size
    assert job["timings_ms"]["explain"] > 0


def test_an_image_that_cannot_be_decoded_fails_alone(stack: Stack, tile: bytes) -> None:
    """Its header is well and its pixels are not: the job fails with the reason, its neighbours do not."""
    good = [stack.accept(tile) for _ in range(5)]
    bad = stack.submit(factories.png_file(64, 64, b"no deflate stream"))
    assert bad.status_code == 202, bad.text
    job = stack.finish(bad.headers["Location"])
    assert job["status"] == "failed"
    assert job["error"]["code"] == "INVALID_IMAGE"
    assert all(stack.finish(path)["status"] == "succeeded" for path in good)


def test_no_password_is_shown(stack: Stack) -> None:
    """Not in a log, not in a command line; the file that holds them is its owner's alone."""
    file = stack.data / "data" / "secrets.json"
    assert file.stat().st_mode & 0o777 == 0o600
    secrets = json.loads(file.read_text()).values()
    said = stack.log.read_text() + "".join(
        path.read_text(errors="replace") for path in (stack.data / "data" / "logs").glob("*.log")
    )
    said += " ".join(word for process in stack.processes() for word in process.cmdline())
    assert not [secret for secret in secrets if secret in said]


def test_every_port_is_the_loopbacks_alone(stack: Stack) -> None:
    """Nothing listens where another machine could reach it."""
    listening = [
        connection.laddr.ip
        for process in stack.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}


def test_the_workers_parent_holds_no_runtime(stack: Stack) -> None:
    """What can crash lives in the engine process alone; unless told, it runs the converted network."""
    parent = psutil.Process(stack.pid_of("worker"))
    assert parent.memory_info().rss < 250e6
    assert runtimes_in(parent) == set()
    assert runtimes_in(stack.engine()) == {"mnn"}


def runtimes_in(process: psutil.Process) -> set[str]:
    """Return whose code a process has loaded."""
    paths = [item.path for item in process.memory_maps()]
    return {name for name in ("tensorflow", "onnxruntime", "mnn") if any(name in path for path in paths)}


def test_a_killed_engine_costs_no_job(stack: Stack) -> None:
    """The members of its micro-batch run again; the worker stays."""
    worker = stack.pid_of("worker")
    paths = submit_many(stack, 60, lambda: stack.engine().kill())
    assert_none_is_lost(stack, paths)
    assert stack.pid_of("worker") == worker
    assert psutil.pid_exists(worker)


def test_a_hanging_engine_costs_no_job(stack: Stack) -> None:
    """It is stopped in the middle of its work, found out by its deadline, and replaced."""
    engine = stack.engine()
    paths = submit_many(stack, 60, engine.suspend)
    assert_none_is_lost(stack, paths)
    assert not engine.is_running()


def test_a_killed_worker_costs_no_job(stack: Stack) -> None:
    """`kill -9` in the middle of 200 tiles: everything that was accepted comes back."""
    paths = submit_many(stack, LOAD, lambda: os.kill(stack.pid_of("worker"), signal.SIGKILL))
    assert_none_is_lost(stack, paths)


def test_a_killed_redis_costs_no_job(stack: Stack) -> None:
    """`kill -9` of the server that holds the ledger and the queue, in the middle of 200 tiles."""
    paths = submit_many(stack, LOAD, lambda: os.kill(stack.pid_of("redis"), signal.SIGKILL))
    assert_none_is_lost(stack, paths)


@pytest.mark.parametrize("name", ["stack", "stack_on_s3"])
def test_a_killed_object_store_costs_no_job(request: pytest.FixtureRequest, name: str) -> None:
    """Uploads are refused while it is away, and accepted jobs wait for it."""
    stack: Stack = request.getfixturevalue(name)
    paths = submit_many(stack, 60, lambda: os.kill(stack.pid_of("object-store"), signal.SIGKILL))
    assert_none_is_lost(stack, paths)


def test_a_missing_folder_is_an_outage(stack: Stack, tile: bytes) -> None:
    """Nothing is accepted, no image counts as gone, and the jobs run when it is there again."""
    bucket = stack.data / "data/objects/histoqueue"
    worker = psutil.Process(stack.pid_of("worker"))
    worker.suspend()
    try:
        path = stack.accept(tile)
        bucket.rename(bucket.with_name("away"))
    finally:
        worker.resume()
    try:
        assert stack.submit(tile).status_code == 503
        answer = stack.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["object_store"] == "failing"
        time.sleep(1)
        assert stack.client.get(path).status_code == 202
    finally:
        bucket.with_name("away").rename(bucket)
    assert stack.finish(path)["status"] == "succeeded"


def test_a_message_that_vanished_with_its_worker_is_published_again(stack: Stack, tile: bytes) -> None:
    """Taken from the queue by a worker that is stopped, then killed before it noted anything."""
    worker = psutil.Process(stack.pid_of("worker"))
    worker.suspend()
    paths = [stack.accept(tile) for _ in range(5)]
    worker.kill()
    assert_none_is_lost(stack, paths)


def test_a_canceled_job_stays_canceled_with_no_worker_at_all(stack: Stack, tile: bytes) -> None:
    """Cancelling is a fact of the ledger, not a message to a worker."""
    worker = psutil.Process(stack.pid_of("worker"))
    worker.suspend()
    try:
        path = stack.accept(tile)
        canceled = stack.client.post(f"{path}/cancel")
        assert canceled.status_code == 200, canceled.text
    finally:
        worker.resume()
    assert stack.finish(path)["status"] == "canceled"
    time.sleep(2)
    assert stack.client.get(path).json()["status"] == "canceled"


def test_a_job_that_waits_too_long_expires_with_no_worker_at_all(stack: Stack, tile: bytes) -> None:
    """The client is told, by whoever looks."""
    worker = psutil.Process(stack.pid_of("worker"))
    worker.suspend()
    try:
        path = stack.client.post("/predict?expires_in=1", content=tile, headers={"Content-Type": "image/png"})
        time.sleep(1.2)
        job = stack.client.get(path.headers["Location"]).json()
    finally:
        worker.resume()
    assert job["status"] == "expired"
    assert job["error"]["code"] == "DEADLINE_EXCEEDED"


def test_it_is_not_ready_while_no_worker_consumes(stack: Stack) -> None:
    """Ready means that somebody does the work."""
    assert wait_until(lambda: stack.client.get("/readyz").status_code == 200, 30)
    worker = psutil.Process(stack.pid_of("worker"))
    worker.suspend()
    try:
        assert wait_until(lambda: stack.client.get("/readyz").status_code == 503, 20)
        assert stack.client.get("/healthz").status_code == 200
    finally:
        worker.resume()
    assert wait_until(lambda: stack.client.get("/readyz").status_code == 200, 20)


def test_bad_input_is_refused_and_the_stack_goes_on(stack: Stack, tile: bytes) -> None:
    """Each gets its code with a problem body; the next tile is answered as ever."""
    as_png = {"Content-Type": "image/png"}
    form = {"file": ("x.png", tile, "image/png")}
    for name, request, status in (
        ("nothing", {"content": b"", "headers": as_png}, 422),
        ("text", {"content": b"hello", "headers": as_png}, 415),
        ("html", {"content": b"<html><img src=x></html>", "headers": as_png}, 415),
        ("truncated", {"content": factories.truncated(factories.jpeg_bytes()), "headers": as_png}, 422),
        ("bomb", {"content": factories.png_bomb(), "headers": as_png}, 413),
        ("vast header", {"content": factories.png_with_huge_header(), "headers": as_png}, 413),
        ("json", {"json": {"image": "x"}}, 415),
        ("no file", {"data": {"custom_id": "x"}, "files": {}}, 415),
        ("wrong field", {"files": {"image": ("x.png", tile, "image/png")}}, 400),
        ("two files", {"files": [("file", form["file"]), ("file", form["file"])]}, 400),
        ("unknown option", {"files": form, "data": {"colour": "blue"}}, 400),
    ):
        answer = stack.client.post("/predict", **request)
        assert answer.status_code == status, (name, answer.status_code, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json", name
        assert {"type", "title", "status", "detail", "code", "retryable"} <= set(answer.json()), name
    for path in (f"/result/{new_job_id()}", "/result/..%2f..%2fetc%2fpasswd", "/result/x", "/nowhere"):
        answer = stack.client.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["Content-Type"] == "application/problem+json", path
    assert stack.submit(tile, Prefer="wait=20").json()["status"] == "succeeded"


def test_a_declared_type_is_not_believed(stack: Stack, tile: bytes) -> None:
    """A PNG that says it is a JPEG is a PNG."""
    answer = stack.client.post(
        "/predict", content=tile, headers={"Content-Type": "image/jpeg", "Prefer": "wait=20"}
    )
    assert answer.json()["input"]["media_type"] == "image/png"
    assert answer.json()["status"] == "succeeded"


def test_a_vast_body_is_refused_while_it_comes_in(stack: Stack, tile: bytes) -> None:
    """200 MB: the refusal comes long before the end, and nothing of it is kept."""
    sent = 0

    def body() -> Any:
        nonlocal sent
        for _ in range(200):
            sent += 1_000_000
            yield b"\xff" * 1_000_000

    try:
        answer = stack.client.post("/predict", content=body(), headers={"Content-Type": "image/png"})
    except httpx2.TransportError:
        pass  # a client that goes on sending may see no more than the closed connection
    else:
        assert answer.status_code == 413
    # What an image may have, what a refused client is heard out with, and what fits the sockets' own buffers.
    assert sent < 20_000_000 + MOST_LINGERING_BYTES + 40_000_000
    assert stack.submit(tile, Prefer="wait=20").status_code == 200
