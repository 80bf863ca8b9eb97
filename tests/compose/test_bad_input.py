"""What is wrong is said in one line by the service concerned, which waits or ends and is never healthy."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.processes import wait_until
from tests.compose.project import PROJECT, Compose, Container, docker

pytestmark = pytest.mark.skipif("COMPOSE_TESTS" not in os.environ, reason="`make compose-test` runs these")
ENDPOINT = "S3_ENDPOINT_URL=http://object-store:1"
BUCKET = "S3_BUCKET=not-there"
PASSWORD = "REDIS_URL=redis://:wrong@redis:6379/0"


@contextmanager
def disk(size: str) -> Iterator[str]:
    """Make a volume of this size; yield its name."""
    name = f"{PROJECT}-tiny"
    options = ("type=tmpfs", "device=tmpfs", f"o=size={size},mode=0777")
    docker("volume", "create", *(word for option in options for word in ("--opt", option)), name)
    try:
        yield name
    finally:
        docker("volume", "rm", "--force", name)


def said(container: Container, words: str) -> str:
    """Wait for the one line with these words; return it."""

    def found() -> list[str]:
        return [line for line in container.lines if words in line]

    assert wait_until(found, 120, 1), container.lines
    return found()[0]


@pytest.mark.parametrize(
    ("service", "setting", "words"),
    [
        ("api", PASSWORD, "invalid username-password pair"),
        ("worker", PASSWORD, "invalid username-password pair"),
        ("api", ENDPOINT, "http://object-store:1 does not answer"),
        ("worker", ENDPOINT, "http://object-store:1 does not answer"),
        ("bucket", ENDPOINT, "http://object-store:1 does not answer"),
        ("api", BUCKET, "bucket not-there at http://object-store:8080 does not exist"),
        ("worker", BUCKET, "bucket not-there at http://object-store:8080 does not exist"),
    ],
    ids=lambda value: value.split("=")[0] if "=" in value else None,
)
def test_a_server_that_is_set_wrongly_says_so_and_waits(
    compose: Compose, service: str, setting: str, words: str
) -> None:
    """It names what it could not reach, once for each check; it shows no password, and is not healthy."""
    with compose.beside(service, "--env", setting) as container:
        said(container, words)
        assert ":wrong@" not in "".join(container.lines)
        assert container.state("Status") == "running"
        if service != "bucket":  # a one-shot has no health: what follows it waits for its end
            assert container.state("Health.Status") != "healthy"
        if setting != PASSWORD:
            time.sleep(6)  # it looks again every two to five seconds, and has nothing new to say
            about = [re.findall(r'"check": "\w+"', line) for line in container.lines if words in line]
            assert all(about.count(check) == 1 for check in about), container.lines


def test_a_worker_without_room_for_its_model_says_so_and_waits(compose: Compose) -> None:
    """Its disk is 64 kB."""
    with (
        disk("64k") as tiny,
        compose.beside(
            "worker", "--volume", f"{tiny}:/tiny", "--env", "MODEL_CACHE_DIR=/tiny/m"
        ) as container,
    ):
        assert "No space left on device" in said(container, "no_model_yet")
        assert container.state("Status") == "running"
        assert container.state("Health.Status") != "healthy"


def test_an_object_store_without_room_keeps_the_bucket_from_being_filled(compose: Compose) -> None:
    """The store names the cause, and the one-shot waits: until it has ended, nothing else is started."""
    with (
        disk("200k") as tiny,
        compose.beside("object-store", "--volume", f"{tiny}:/data") as store,
        compose.beside("bucket", "--env", f"S3_ENDPOINT_URL=http://{store.name}:8080") as bucket,
    ):
        assert "OBJECT_STORE_UNAVAILABLE" in said(bucket, "waiting:")
        assert "remaining disk space" in "".join(store.lines)
        assert bucket.state("Status") == "running"


def test_a_redis_without_room_ends_and_says_why(compose: Compose) -> None:
    """What it cannot write down it does not accept."""
    with disk("2m") as tiny, compose.beside("redis", "--volume", f"{tiny}:/data") as redis:
        assert wait_until(lambda: "Ready to accept" in "".join(redis.lines), 30, 0.2), redis.lines
        password = 'cut -d\\" -f2 /run/histoqueue/redis.conf | head -1'
        text = f'head -c 4000000 /dev/zero | redis-cli -a "$({password})" --no-auth-warning -x SET a'
        subprocess.run(["docker", "exec", redis.name, "sh", "-c", text], capture_output=True, check=False)
        said(redis, "write error")
        assert wait_until(lambda: redis.state("ExitCode") != "0", 30, 0.5), redis.lines


def test_a_worker_that_needs_a_gpu_ends_where_none_is_shown(compose: Compose) -> None:
    """At once, with one line and a status that is not 0."""
    with compose.beside("worker", "--env", "REQUIRE_GPU=true") as container:
        assert "expected an NVIDIA GPU" in said(container, "worker_cannot_start")
        assert wait_until(lambda: container.state("ExitCode") == "1", 30, 0.5)
        assert container.state("Health.Status") != "healthy"


def test_a_worker_that_needs_a_gpu_ends_where_tensorflow_can_use_none(compose: Compose) -> None:
    """Something looks like WSL2's card; the packages are those for processors."""
    card = ("--volume", "/dev/null:/dev/dxg", "--env", "REQUIRE_GPU=true")
    with compose.beside("worker", *card) as container:
        assert "expected a GPU that TensorFlow can use" in said(container, "worker_cannot_start")
        assert wait_until(lambda: container.state("ExitCode") == "1", 30, 0.5)


def test_the_profile_gpu_is_refused_by_an_engine_that_has_none(compose: Compose, tmp_path: Path) -> None:
    """Nothing is started; the engine's own line says why."""
    if compose.has_gpu():
        pytest.skip("this engine can give a GPU")
    # The other image will do: the engine refuses before it looks into one, and this one takes gigabytes.
    instead = tmp_path / "instead.yml"
    instead.write_text("services: {worker-gpu: {image: histoqueue-worker}}")
    files = ["-f", "docker-compose.yml", "-f", str(instead), "--profile", "gpu"]
    text = compose.fails(*files, "up", "--detach", "--no-deps", "--no-build", "worker-gpu")
    assert "could not select device driver" in text


def test_a_taken_port_is_said_by_the_engine(compose: Compose) -> None:
    """The API is not started on another one; with a free one it is there again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with compose.set(PORT=str(port)):
            text = compose.fails("up", "--detach", "--no-deps", "api")
        assert f"127.0.0.1:{port}" in text
        assert "address already in use" in text
    compose.up()
    compose.all_succeed(range(500, 503))
