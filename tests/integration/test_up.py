"""`make up` as its operator meets it: starting, ending, starting again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ops.processes import wait_until
from ops.servers import RedisServer, free_port
from shared import keys
from shared.job_store_redis import connect
from shared.object_store import WORKER_PATIENCE
from shared.object_store_s3 import S3ObjectStore
from tests.stack import ROOT, Stack, png

pytestmark = [pytest.mark.integration, pytest.mark.tensorflow]


def run_up(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to an end that comes by itself."""
    return subprocess.run(
        [sys.executable, "-m", "ops.up", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    """Nothing is started, and the line says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run_up(PORT=str(port), DATA_DIR=str(tmp_path))
    assert ended.returncode == 1
    assert (
        f"error: port {port} of 127.0.0.1 is taken. Choose another: PORT={port + 1} make up" in ended.stdout
    )
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"DATA_DIR": __file__}, "File exists"),
        ({"DATA_DIR": "/proc/nowhere"}, "No such file or directory"),
        ({"PORT": "99999"}, "PORT: Input should be less than or equal to 65535"),
        ({"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY: Input should be greater than or equal to 1"),
        ({"WEB_CONCURRENCY": "all"}, "WEB_CONCURRENCY: Input should be a valid integer"),
        ({"SCRIPT_NAME": "tiles"}, "SCRIPT_NAME: String should match pattern"),
        ({"SCRIPT_NAME": "/tiles/"}, "SCRIPT_NAME: String should match pattern"),
    ],
)
def test_what_cannot_begin_is_said_in_one_line(tmp_path: Path, setting: dict[str, str], said: str) -> None:
    """And not by a traceback."""
    ended = run_up(**{"DATA_DIR": str(tmp_path), **setting})
    assert ended.returncode == 1
    (line,) = [line for line in (ended.stdout + ended.stderr).splitlines() if line != "stopped"]
    assert line.startswith("error: ")
    assert said in line


def test_settings_may_come_from_a_file_and_the_environment_comes_first(tmp_path: Path) -> None:
    """`make up` names `.env`; one that is not there is as good as an empty one."""
    file = tmp_path / "settings"
    file.write_text("# a comment\nPORT=99999\nMAX_OPEN_JOBS=none\n")
    ended = run_up(str(file), DATA_DIR=str(tmp_path))
    assert "error: PORT" in ended.stderr
    ended = run_up(str(file), DATA_DIR=str(tmp_path), PORT=str(free_port()))
    assert "error: MAX_OPEN_JOBS" in ended.stderr
    assert "error: PORT" not in ended.stderr
    ended = run_up(str(tmp_path / "none"), DATA_DIR=str(tmp_path), PORT="99999")
    assert "error: PORT" in ended.stderr
    file.write_bytes("# für den Entwurf\n".encode("latin-1"))
    ended = run_up(str(file), DATA_DIR=str(tmp_path), PORT=str(free_port()))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith(f"error: {file}: expected text in UTF-8.")


def is_alive(process: psutil.Process) -> bool:
    """Tell a process from one that has ended and waits to be buried by the machine's first process."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_data_survives_ctrl_c_and_a_new_start(tmp_path: Path) -> None:
    """Ctrl-C ends every process in time; the next start knows the results and the model."""
    with Stack(tmp_path / "stack") as first:
        answer = first.submit(png(3), Prefer="wait=30")
        assert answer.status_code == 200
        path = answer.json()["links"]["self"]
        processes = first.processes()
        assert len(processes) >= 5
        assert (tmp_path / "stack" / "data" / "servers.json").exists()
        assert first.client.get("/capacity").json()["memory_share"] > 0, "Redis has a limit"
        asked = time.monotonic()
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(20) == 0
        assert time.monotonic() - asked < 15
        assert not [process for process in processes if is_alive(process)]
        assert first.says("published the bundled model")
        assert not (tmp_path / "stack" / "data" / "servers.json").exists()
    with Stack(tmp_path / "stack") as second:
        assert second.says("found model")
        again = second.client.get(path)
        assert again.status_code == 200
        assert again.json()["result"] == answer.json()["result"]
        ended = run_up(PORT=str(second.port + 1), DATA_DIR=str(tmp_path / "stack" / "data"))
        assert ended.returncode == 1
        assert "another `make up` runs on" in ended.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    """`kill -9` gives it no time to end anybody; the kernel does. Until then the data are theirs."""
    with Stack(tmp_path / "stack") as stack:
        processes = stack.processes()
        slow = psutil.Process(stack.pid_of("redis"))
        slow.suspend()
        stack.process.kill()
        stack.process.wait()
        second = run_up(PORT=str(free_port()), DATA_DIR=str(tmp_path / "stack" / "data"))
        assert "or what it started is still ending" in second.stdout
        slow.resume()

        def all_gone() -> bool:
            return not [item for item in processes if is_alive(item)]

        assert wait_until(all_gone, 20), [item for item in processes if is_alive(item)]


def test_a_stop_with_work_under_way_hands_it_back(tmp_path: Path) -> None:
    """What was accepted before Ctrl-C is finished after the next start."""
    with Stack(tmp_path / "stack") as first:
        image = png(4)
        paths = [first.accept(image) for _ in range(100)]
    with Stack(tmp_path / "stack") as second:
        jobs = [second.finish(path) for path in paths]
        assert {job["status"] for job in jobs} == {"succeeded"}


def test_no_process_of_the_api_has_a_file_on_the_disk_mapped_to_write(tmp_path: Path) -> None:
    """Where that disk is full, each write to such a file would end the process."""
    with Stack(tmp_path / "stack") as stack:
        stack.accept(png(5))
        main = psutil.Process(stack.pid_of("api"))
        maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in (main, *main.children())]
    written = [line.split()[-1] for text in maps for line in text.splitlines() if " rw-s " in line]
    assert any("histoqueue-metrics" in path for path in written)
    assert not [path for path in written if not path.startswith(("/dev/shm/", "/dev/zero", "/memfd:"))]


def test_a_redis_that_is_given_is_used(tmp_path: Path, redis_server: RedisServer) -> None:
    """No server is started beside it, the job goes through it, and its image goes when its time is over."""
    given = {"REDIS_URL": redis_server.url, "IMAGE_RETENTION_SECONDS": "1"}
    with Stack(tmp_path / "stack", given) as stack:
        assert not stack.says("  redis ")
        answer = stack.submit(png(5), Prefer="wait=30")
        assert answer.json()["status"] == "succeeded"
        with connect(redis_server.url, 2) as client:
            assert client.exists(keys.JOB + answer.json()["id"])
        uploads = tmp_path / "stack/data/objects/histoqueue/uploads"
        assert wait_until(lambda: not any(path.is_file() for path in uploads.rglob("*")), 20), "kept"
        assert stack.client.get(answer.json()["links"]["self"]).json()["result"]


def test_a_bad_setting_is_said_before_anything_starts(tmp_path: Path) -> None:
    """One line, and no child that fails in its log."""
    ended = run_up(PORT=str(free_port()), DATA_DIR=str(tmp_path / "data"), MAX_BATCH_SIZE="0")
    assert ended.returncode == 1
    assert "error: MAX_BATCH_SIZE: " in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not (tmp_path / "data").exists()


def s3_client(data: Path) -> S3ObjectStore:
    """Return a client of the S3 server of this data directory."""
    servers = json.loads((data / "servers.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, servers[name])
        store = S3ObjectStore("histoqueue", servers["S3_ENDPOINT_URL"], "us-east-1", WORKER_PATIENCE)
        store.ping()  # the credentials are read now
    return store


def test_images_lie_in_the_folder_that_the_s3_server_serves(tmp_path: Path) -> None:
    """A client of that server sees them at once, and what it puts there can be submitted by its key."""
    with Stack(tmp_path / "stack", {"BATCH_KEY_PREFIX": "incoming/"}) as stack:
        store = s3_client(tmp_path / "stack/data")
        job = stack.finish(stack.accept(png(6)))
        (key,) = store.list_keys("uploads/")
        assert key.endswith(job["id"])
        assert store.get(key, 1_000_000).startswith(png(6))
        assert wait_until(lambda: len(store.list_keys("results/")) == 1, 10)
        store.put("incoming/tile.png", png(7), "image/png")
        answer = stack.client.post("/batches", json={"keys": ["incoming/tile.png"]})
        assert answer.status_code == 202, answer.text
        assert wait_until(lambda: len(store.list_keys("results/")) == 2, 20), stack.story()
        environment = psutil.Process(stack.pid_of("worker")).environ()
        assert environment["OBJECT_STORE_DIR"] == str(tmp_path / "stack/data/objects")


@pytest.mark.parametrize("setting", [{"OBJECT_STORE": "s3"}, {"S3_PREFIX": "lab/"}])
def test_all_may_go_through_the_s3_server(tmp_path: Path, setting: dict[str, str]) -> None:
    """Where it is asked for, and where the bucket is to hold other things, too."""
    with Stack(tmp_path / "stack", setting) as first:
        job = first.finish(first.accept(png(3)))
        assert job["status"] == "succeeded"
        assert "OBJECT_STORE_DIR" not in psutil.Process(first.pid_of("worker")).environ()


def test_a_folder_can_stand_in_for_the_object_store(tmp_path: Path) -> None:
    """One process less; uploads, outcomes and the model lie in the folder."""
    folder = tmp_path / "objects"
    with Stack(tmp_path / "stack", {"OBJECT_STORE_DIR": str(folder)}) as stack:
        job = stack.finish(stack.accept(png(3)))
        assert job["status"] == "succeeded"
        assert not [process for process in stack.processes() if "rclone" in process.name()]
        bucket = folder / "histoqueue"
        assert len(list(bucket.glob(f"uploads/*/*/*/{job['id']}"))) == 1
        assert wait_until(lambda: len(list(bucket.glob(f"results/*/{job['id']}.json"))) == 1, 10)
        assert list(bucket.glob("models/lung-cnn/*/manifest.json"))
