"""What is made of an S3 server's answers, of one that is none, and of none at all."""

import io
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import boto3.session
import pytest
from moto import mock_aws

from ops.servers import ObjectServer, free_port
from shared.errors import ObjectStoreUnavailable, cause_of
from shared.object_store import Patience
from shared.object_store_s3 import S3ObjectStore, S3Options
from tests.contract.conftest import PATIENCE
from tests.tls import TlsFront, make_certificates


def test_a_server_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call says so, and names no address."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    port = free_port()
    store = S3ObjectStore("bucket", f"http://127.0.0.1:{port}", "us-east-1", PATIENCE)
    for call in (
        lambda: store.put("k", b"x", "text/plain"),
        lambda: store.get("k", 1),
        lambda: store.delete("k"),
        lambda: store.list_keys("k"),
        store.ping,
    ):
        with pytest.raises(ObjectStoreUnavailable) as caught:
            call()
        assert str(port) not in str(caught.value)


def test_a_wrong_key_is_refused(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is not open to whoever reaches its port."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ObjectStoreUnavailable):
        S3ObjectStore("histoqueue", object_server.url, "us-east-1", PATIENCE).list_keys("")


class Hiccup(BaseHTTPRequestHandler):
    """An S3 server that fails the first write and takes the second."""

    bodies: ClassVar[list[bytes]] = []

    def do_PUT(self) -> None:
        """Note the body; refuse the first."""
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(500 if len(self.bodies) == 1 else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_hiccup_of_the_server_is_not_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes are sent once more, from where the file stood."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hiccup) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        file = io.BytesIO(b"before|the object")
        file.seek(7)
        patient = Patience(connect_seconds=5, read_seconds=60, attempts=1)
        S3ObjectStore("bucket", url, "us-east-1", patient).put("key", file, "text/plain")
        server.shutdown()
    assert Hiccup.bodies == [b"the object", b"the object"]


class Portal(BaseHTTPRequestHandler):
    """A network's login page, whatever is asked: answered by itself, or by leading there."""

    status = 200

    def answer(self) -> None:
        """Take the body and show the page."""
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        page = b"<html><body>Log in to this network</body></html>"
        self.send_response(self.status)
        self.send_header("Location", "/login")
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_GET = do_HEAD = do_PUT = do_DELETE = answer  # noqa: N815 - names of http.server

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("status", "said"), [(200, "expected an answer"), (302, "redirects every request")])
def test_a_login_page_in_place_of_the_server_is_an_outage(
    any_key: None, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    """By its 200 an image was stored, and no key was ever made; its 302 ended the program by a recursion."""
    monkeypatch.setattr(Portal, "status", status)
    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        store = S3ObjectStore("bucket", url, "us-east-1", PATIENCE)
        for call in (
            lambda: store.put("key", b"x", "text/plain"),
            lambda: store.get("key", 100),
            lambda: store.list_keys("keys/"),
            lambda: store.delete("key"),
        ):
            assert said in cause(call)
        server.shutdown()


@pytest.fixture
def any_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials; moto takes any."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")


def test_a_prefix_and_an_encryption_reach_the_server(moto_url: str, any_key: None) -> None:
    """What lies there has them; a neighbour under another prefix is neither listed nor touched."""
    bucket = f"test-{uuid4().hex[:12]}"
    options = S3Options(prefix="lab/tiles/", encryption="aws:kms", kms_key_id="our-key")
    ours = S3ObjectStore(bucket, moto_url, "us-east-1", PATIENCE, options=options)
    whole = S3ObjectStore(bucket, moto_url, "us-east-1", PATIENCE)
    ours.ensure_bucket()
    ours.put("uploads/a", b"x", "image/png")
    whole.put("uploads/b", b"y", "image/png")
    assert whole.list_keys("") == ["lab/tiles/uploads/a", "uploads/b"]
    assert ours.list_keys("") == ["uploads/a"]
    client = boto3.session.Session().client("s3", endpoint_url=moto_url, region_name="us-east-1")
    stored = client.head_object(Bucket=bucket, Key="lab/tiles/uploads/a")
    assert (stored["ServerSideEncryption"], stored["SSEKMSKeyId"]) == ("aws:kms", "our-key")
    ours.delete("uploads/b")
    assert whole.get("uploads/b", 1) == b"y"


def cause(call: Callable[[], object]) -> str:
    """Return what the operator's log says of a call that must be unavailable."""
    with pytest.raises(ObjectStoreUnavailable) as caught:
        call()
    line = cause_of(caught.value)
    assert line
    assert "\n" not in line
    assert "127.0.0.1" not in str(caught.value)
    return line


def test_a_missing_bucket_is_an_outage_and_no_missing_object(object_server: ObjectServer) -> None:
    """Else every job whose image it holds would end as if its image were lost."""
    store = S3ObjectStore("no-such-bucket", object_server.url, "us-east-1", PATIENCE)
    for call in (
        lambda: store.get("uploads/a", 10),
        lambda: store.put("uploads/a", b"x", "image/png"),
        lambda: store.list_keys("uploads/"),
        store.ping,
    ):
        assert f"bucket no-such-bucket at {object_server.url} does not exist" in cause(call)


def test_wrong_credentials_are_named_as_the_cause(
    object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bucket and the place, and without the key."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
    store = S3ObjectStore("histoqueue", object_server.url, "us-east-1", PATIENCE)
    for call in (store.ping, store.ensure_bucket, lambda: store.get("a", 1)):
        line = cause(call)
        assert f"bucket histoqueue at {object_server.url}: wrong credentials" in line
        assert "hunter2" not in line


def test_missing_credentials_are_named_as_the_cause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The line says what to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3ObjectStore("histoqueue", "http://127.0.0.1:1", "us-east-1", PATIENCE)
    assert "AWS_ACCESS_KEY_ID" in cause(store.ping)


def test_a_refusing_endpoint_is_named_as_the_cause(any_key: None) -> None:
    """With its address."""
    port = free_port()
    store = S3ObjectStore("histoqueue", f"http://127.0.0.1:{port}", "us-east-1", PATIENCE)
    assert f"http://127.0.0.1:{port} does not answer" in cause(store.ping)


def test_an_untrusted_certificate_is_named_as_the_cause(
    object_server: ObjectServer, tmp_path: Path, any_key: None
) -> None:
    """The line names the setting that mends it."""
    front = TlsFront(make_certificates(tmp_path), object_server.port)
    store = S3ObjectStore("histoqueue", f"https://127.0.0.1:{front.port}", "us-east-1", PATIENCE)
    assert "S3_CA_FILE" in cause(store.ping)
    front.close()


def test_a_bucket_of_another_region_is_made_there() -> None:
    """AWS refuses the request that does not name it."""
    with mock_aws():
        store = S3ObjectStore("elsewhere-bucket", None, "eu-central-1", PATIENCE)
        store.ensure_bucket()
        store.ensure_bucket()
        store.ping()
