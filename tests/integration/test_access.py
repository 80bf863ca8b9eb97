"""A real gunicorn that everybody could reach: it starts with a key, and without one it says why not."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from ops.processes import Child, wait_until
from ops.servers import ObjectServer, RedisServer, free_port

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def test_a_server_for_everybody_needs_a_key(
    object_server: ObjectServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Refused in one line; made with the command, the key opens it, and nothing else does."""
    environment = {
        **os.environ,
        **object_server.environment(),
        "REDIS_URL": redis_server.url,
        "S3_BUCKET": "for-keys",
    }
    assert object_server.is_ready("for-keys")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf"]
    # Every address of this machine; nothing outside is told of the port.
    command += ["--bind", f"0.0.0.0:{port}", "api.wsgi:app"]

    refused = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode != 0
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert "0.0.0.0 without an API key" in line
    assert "Traceback" not in refused.stderr

    made = subprocess.run(
        [sys.executable, "-m", "ops.keys", "create", "--name", "test", "--scope", "admin"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    key = made.stdout.strip()
    server = Child("api", command, tmp_path / "api.log", environment=environment)
    server.start()
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert wait_until(lambda: _answers(client), 30), server.log.read_text()
            assert client.get("/capacity").status_code == 401
            assert client.get("/capacity", headers={"Authorization": f"Bearer {key}"}).status_code == 200
            # An upload that is refused is not read: last, because its connection is closed behind it.
            assert client.post("/predict", content=b"x" * 300_000).status_code == 401
        assert key not in server.log.read_text()
    finally:
        server.stop(10)


def _answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx2.HTTPError:
        return False


def test_two_processes_count_together(
    object_server: ObjectServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Whichever answers tells the requests of both; nothing is left behind at the end."""
    environment = {
        **os.environ,
        **object_server.environment(),
        "REDIS_URL": redis_server.url,
        "S3_BUCKET": "for-metrics",
        "WEB_CONCURRENCY": "2",
        "TMPDIR": str(tmp_path),
    }
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    assert object_server.is_ready("for-metrics")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf"]
    command += ["--bind", f"127.0.0.1:{port}", "api.wsgi:app"]
    server = Child("api", command, tmp_path / "api.log", environment=environment)
    server.start()
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert wait_until(lambda: _answers(client), 30), server.log.read_text()
        for _ in range(20):
            # A connection of its own each: either process may take it.
            assert httpx2.get(f"http://127.0.0.1:{port}/models/none", trust_env=False).status_code == 404
        pages = [httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text for _ in range(4)]
        for page in pages:
            (line,) = [
                line
                for line in page.splitlines()
                if 'route="/models/<version>"' in line and "requests_total" in line
            ]
            assert line.endswith(" 20.0")
    finally:
        server.stop(10)
    assert [path.name for path in tmp_path.iterdir()] == ["api.log"]
