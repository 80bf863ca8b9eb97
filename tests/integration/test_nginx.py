"""Behind nginx, as `deploy/nginx/histoqueue.conf` sets it up: what a client gets is what the API says."""

import getpass
import io
import shutil
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from ops.processes import Child, wait_until
from ops.servers import HOST, free_port
from tests.stack import ROOT, Stack, png
from tests.tls import make_certificates

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
NAME = "tiles.example.org"
#: What a configuration of nginx's has around ours.
AROUND = """
user {user};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    {temporary}
    include {ours};
}}
"""
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx-light"),
]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, httpx2.Client]]:
    """A stack without keys, and a client of the nginx before it."""
    folder = tmp_path_factory.mktemp("nginx")
    certificates = make_certificates(folder, NAME)
    with Stack(tmp_path_factory.mktemp("proxied")) as stack:
        port = free_port()
        server = Child("nginx", _command(folder, stack.port, port, certificates.server_file), folder / "log")
        server.start()
        try:
            trust = ssl.create_default_context(cafile=str(certificates.ca_file))
            with httpx2.Client(
                base_url=f"https://{HOST}:{port}",
                verify=trust,
                headers={"Host": NAME},
                timeout=40,
                trust_env=False,
            ) as client:
                # The certificate is one of the name, the port one of this machine.
                client.event_hooks["request"] = [_ask_by_name]
                assert wait_until(lambda: _answers(client), 10), server.log.read_text()
                yield stack, client
        finally:
            server.stop(10)


def _ask_by_name(request: httpx2.Request) -> None:
    request.extensions["sni_hostname"] = NAME


def _command(folder: Path, api: int, port: int, certificate: Path) -> list[str]:
    text = (ROOT / "deploy/nginx/histoqueue.conf").read_text()
    for theirs, ours in {
        "127.0.0.1:5000": f"{HOST}:{api}",
        "listen 443 ssl": f"listen {HOST}:{port} ssl",
        f"/etc/ssl/certs/{NAME}.pem": str(certificate),
        f"/etc/ssl/private/{NAME}.key": str(certificate),
    }.items():
        assert text.count(theirs) == 1
        text = text.replace(theirs, ours)
    (folder / "histoqueue.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    main = AROUND.format(
        user=getpass.getuser(), folder=folder, temporary=temporary, ours=folder / "histoqueue.conf"
    )
    (folder / "nginx.conf").write_text(main)
    return [str(NGINX), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]


def _answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx2.HTTPError:
        return False


@pytest.fixture(scope="module")
def opened(proxied: tuple[Stack, httpx2.Client]) -> httpx2.Client:
    """The same client with a key; asked for by the second test, the first needs an installation without."""
    stack, client = proxied
    made = subprocess.run(
        [sys.executable, "-m", "ops.keys", "create", "--name", "test", "--scope", "admin"],
        cwd=ROOT,
        env={"DATA_DIR": str(stack.data / "data"), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    client.headers["X-API-Key"] = made.stdout.strip()
    assert wait_until(lambda: client.get("/capacity").status_code == 200, 10)
    return client


def test_without_a_key_nobody_gets_in(proxied: tuple[Stack, httpx2.Client]) -> None:
    """To the API they all ask from its own machine."""
    stack, client = proxied
    assert client.get("/capacity").status_code == 403
    assert client.get("/capacity", headers={"Host": "localhost"}).status_code == 403
    assert stack.client.get("/capacity").status_code == 200


def test_a_tile_is_answered(opened: httpx2.Client) -> None:
    """Its request is held, and the address of its job is one of the proxy's."""
    answer = opened.post("/predict", files={"file": png(1)}, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200
    assert answer.json()["status"] == "succeeded"
    assert opened.get(answer.headers["Location"]).json()["id"] == answer.json()["id"]


def test_changes_come_as_they_happen(opened: httpx2.Client) -> None:
    """A proxy that gathers an answer would hold a stream back until it has some kilobytes of it."""
    accepted = opened.post("/predict", files={"file": png(2)})
    with opened.stream("GET", accepted.json()["links"]["events"]) as stream:
        assert stream.status_code == 200
        text = ""
        for piece in stream.iter_text():
            text += piece
            if '"succeeded"' in text:
                break
    assert '"succeeded"' in text


def test_what_is_too_large_is_told_by_the_api(opened: httpx2.Client) -> None:
    """And not by a page of nginx's, which says nothing of limits."""
    answer = opened.post("/predict", files={"file": bytes(21_000_000)})
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_batch_is_accepted(opened: httpx2.Client) -> None:
    """One of more than the megabyte at which nginx stops by itself."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(20):
            file.writestr(f"{number}.png", png(100 + number))
    assert len(archive.getvalue()) > 1_000_000
    answer = opened.post("/batches", content=archive.getvalue(), headers={"Content-Type": "application/zip"})
    assert answer.status_code == 202
    assert len(answer.json()["items"]) == 20


def test_a_batch_without_a_key_is_refused_before_it_is_there(opened: httpx2.Client) -> None:
    """With the API's own words, although most of its bytes are still under way."""
    for _ in range(5):
        answer = opened.post("/batches", content=bytes(30_000_000), headers={"X-API-Key": "none"})
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
