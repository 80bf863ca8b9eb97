"""What an object store promises, held against rclone, moto, a folder and the one in memory."""

import errno
import io
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from uuid import uuid4

import boto3.session
import pytest
from moto import mock_aws
from moto.server import ThreadedMotoServer

from ops.processes import wait_until
from ops.servers import ObjectServer, free_port
from shared import object_store_files
from shared.errors import ObjectStoreUnavailable, cause_of
from shared.object_store import (
    MemoryObjectStore,
    NewObject,
    ObjectStore,
    Patience,
    S3ObjectStore,
    S3Options,
)
from shared.object_store_files import PARTIAL, FileObjectStore
from shared.schemas import wall_clock_ms
from tests.tls import TlsFront, make_certificates

PATIENCE = Patience(connect_seconds=1, read_seconds=5, attempts=1)


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """Another S3 server, so that nothing rests on one server's habits."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", "files", "rclone", "moto", "rclone-all", "moto-all"])
def store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ObjectStore]:
    """Each side of the port, with an empty bucket; "all" is over TLS, under a prefix, encrypted."""
    if request.param == "memory":
        yield MemoryObjectStore()
        return
    if request.param == "files":
        files = FileObjectStore(tmp_path, "bucket")
        files.ensure_bucket()
        yield files
        return
    name, _, wants_all = request.param.partition("-")
    if name == "rclone":
        server: ObjectServer = request.getfixturevalue("object_server")
        url = server.url
    else:
        url = request.getfixturevalue("moto_url")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    bucket, options, front = f"test-{uuid4().hex[:12]}", S3Options(), None
    if wants_all:
        certificates = make_certificates(tmp_path)
        front = TlsFront(certificates, int(url.rpartition(":")[2]))
        url = f"https://127.0.0.1:{front.port}"
        options = S3Options("lab/tiles/", str(certificates.ca_file), "aws:kms", "our-key")
    made = S3ObjectStore(bucket, url, "us-east-1", PATIENCE, options=options)
    made.ensure_bucket()
    yield made
    if front:
        front.close()


def test_what_was_put_comes_back(store: ObjectStore) -> None:
    """Bytes in, the same bytes out, an empty object included."""
    store.put("uploads/2026/11/22/a", b"\x00\xff" * 1000, "image/png")
    store.put("uploads/2026/11/22/empty", b"", "image/png")
    assert store.get("uploads/2026/11/22/a", 2000) == b"\x00\xff" * 1000
    assert store.get("uploads/2026/11/22/empty", 0) == b""


def test_a_file_is_put_from_where_it_stands(store: ObjectStore) -> None:
    """An upload on disk is never read into memory whole by us."""
    body = io.BytesIO(b"x" * 3_000_000)
    store.put("uploads/file", body, "image/tiff")
    assert len(store.get("uploads/file", 3_000_000)) == 3_000_000


def test_a_put_replaces_the_whole_object(store: ObjectStore) -> None:
    """Nothing of the longer one before it is left."""
    store.put("k/a", b"long long long", "text/plain")
    store.put("k/a", b"short", "text/plain")
    assert store.get("k/a", 100) == b"short"


def test_several_are_put_together(store: ObjectStore) -> None:
    """Each is there afterwards, whole; one that was there before is replaced; none at all is no error."""
    store.put("r/aa/1", b"before", "text/plain")
    new = [NewObject(f"r/{key}", key.encode(), "text/plain") for key in ("aa/1", "aa/2", "bb/3")]
    with ThreadPoolExecutor(2) as pool:
        store.put_all(new, pool)
        store.put_all([], pool)
    assert store.list_keys("r/") == ["r/aa/1", "r/aa/2", "r/bb/3"]
    assert [store.get(one.key, 10) for one in new] == [one.body for one in new]


def test_a_missing_object_is_a_missing_file(store: ObjectStore) -> None:
    """Missing is an answer, not an outage."""
    with pytest.raises(FileNotFoundError):
        store.get("uploads/none", 10)


def test_what_is_no_object_is_not_there(store: ObjectStore) -> None:
    """A folder, what would lie below an object, and a name that is longer than a file's may be."""
    store.put("incoming/day/a.png", b"a", "image/png")
    for key in ("incoming/day", "incoming/day/a.png/b.png", f"incoming/{'n' * 300}"):
        with pytest.raises(FileNotFoundError):
            store.get(key, 100)
    assert store.get("incoming/day/a.png", 100) == b"a"


def test_an_object_over_the_limit_is_not_read(store: ObjectStore) -> None:
    """The size is checked before the bytes are taken."""
    store.put("k/big", b"x" * 11, "text/plain")
    with pytest.raises(ValueError, match="at most 10 bytes"):
        store.get("k/big", 10)


def test_delete_removes_and_may_be_repeated(store: ObjectStore) -> None:
    """Deleting what is gone is no error."""
    store.put("k/a", b"x", "text/plain")
    store.delete("k/a")
    store.delete("k/a")
    with pytest.raises(FileNotFoundError):
        store.get("k/a", 10)


def test_keys_are_listed_by_prefix_in_order(store: ObjectStore) -> None:
    """Also where there are none."""
    for key in ("m/b/2", "m/a/1", "n/c"):
        store.put(key, b"x", "text/plain")
    assert store.list_keys("m/") == ["m/a/1", "m/b/2"]
    assert store.list_keys("none/") == []


def test_making_the_bucket_twice_changes_nothing(store: ObjectStore) -> None:
    """What was put before is still there."""
    store.put("k/a", b"x", "text/plain")
    store.ensure_bucket()
    store.ping()
    assert store.get("k/a", 10) == b"x"


def test_threads_share_one_store(store: ObjectStore) -> None:
    """Uploads, reads and deletions at once, none of them lost or mixed up."""
    barrier = threading.Barrier(8)

    def work(number: int) -> bool:
        barrier.wait()
        body = bytes([number]) * 5000
        for turn in range(10):
            store.put(f"t/{number}/{turn}", body, "image/png")
            if store.get(f"t/{number}/{turn}", 5000) != body:
                return False
            store.delete(f"t/{number}/{turn}")
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


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


def test_a_walk_meets_every_object_with_its_time(store: ObjectStore, request: pytest.FixtureRequest) -> None:
    """In order of keys, more than one page of them, and nothing beside the prefix."""
    # The front that adds TLS in tests is no server for a thousand connections; pages are the same behind it.
    count = 5 if request.node.name.endswith("-all]") else 1005
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.put(f"walk/{n:04}", b"x", "text/plain"), range(count)))
    store.put("other", b"x", "text/plain")
    met = list(store.walk("walk/"))
    assert [item.key for item in met] == [f"walk/{n:04}" for n in range(count)]
    assert all(abs(item.modified_at_ms - wall_clock_ms()) < 120_000 for item in met)
    assert list(store.walk("nothing/")) == []


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
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_GET = do_HEAD = do_PUT = answer  # noqa: N815 - names of http.server

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("status", "said"), [(200, "Received: something else"), (302, "redirects every request")]
)
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
        ):
            assert said in cause(call)
        server.shutdown()


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "", "a/.", "a\0b"])
def test_a_key_never_leaves_its_bucket(tmp_path: Path, key: str) -> None:
    """Whatever it says."""
    store = FileObjectStore(tmp_path / "root", "bucket")
    store.ensure_bucket()
    for call in (lambda: store.put(key, b"x", "a/b"), lambda: store.get(key, 1), lambda: store.delete(key)):
        with pytest.raises(ValueError, match="plain names"):
            call()
    assert list((tmp_path / "root" / "bucket").rglob("*")) == []


def test_a_folder_that_takes_nothing_more_does_not_answer(tmp_path: Path) -> None:
    """A full disk still has its folders, so that the question is whether a tile could be stored now."""
    store = FileObjectStore(tmp_path / "root", "bucket")
    store.ensure_bucket()
    store.ping()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, before[1]))
    try:
        with pytest.raises(ObjectStoreUnavailable, match="read or written: File too large") as refused:
            store.ping()
        assert str(tmp_path) not in str(refused.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    store.ping()
    assert not list((tmp_path / "root" / PARTIAL).iterdir())


def test_the_name_of_a_new_folder_is_on_the_disk_before_an_object_in_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each that was made; of those that are there, nothing is asked for again."""
    store = FileObjectStore(tmp_path, "b")
    store.ensure_bucket()
    synced: list[str] = []
    sync = object_store_files._sync
    monkeypatch.setattr(
        object_store_files,
        "_sync",
        lambda path: (sync(path), synced.append(path.relative_to(tmp_path).as_posix())),
    )
    store.put("uploads/2026/11/one", b"x", "image/png")
    assert sorted(synced) == ["b", "b/uploads", "b/uploads/2026", "b/uploads/2026/11"]
    synced.clear()
    store.put("uploads/2026/11/two", b"x", "image/png")
    assert synced == ["b/uploads/2026/11"]


def test_what_a_killed_process_has_left_of_an_image_is_removed(tmp_path: Path) -> None:
    """Nobody would ever delete it: it is no object. What is being written is left alone."""
    store = FileObjectStore(tmp_path, "b")
    store.ensure_bucket()
    store.remove_partial(3600)
    store.put("a", b"an object", "image/png")
    for name, age in (("old", 3700), ("new", 3500)):
        (tmp_path / PARTIAL / name).write_bytes(b"half an image")
        os.utime(tmp_path / PARTIAL / name, (time.time() - age,) * 2)
    store.remove_partial(3600)
    assert [path.name for path in (tmp_path / PARTIAL).iterdir()] == ["new"]
    assert store.get("a", 100) == b"an object"


def test_a_folder_that_is_full_or_away_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing half-written stays, and nothing is taken for missing."""
    store = FileObjectStore(tmp_path / "root", "bucket")
    with ThreadPoolExecutor(1) as pool:
        for call in (
            store.ping,
            lambda: store.put("a/b", b"x", "a/b"),
            lambda: store.put_all([NewObject("a/b", b"x", "a/b")], pool),
            lambda: store.get("a/b", 1),
            lambda: store.delete("a/b"),
            lambda: store.list_keys("a/"),
        ):
            with pytest.raises(ObjectStoreUnavailable):
                call()
    store.ensure_bucket()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shared.object_store_files.os.fsync", full)
    with pytest.raises(ObjectStoreUnavailable):
        store.put("a/b", b"x", "a/b")
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file()] == []


def test_a_disk_that_cannot_be_read_is_an_outage_and_no_missing_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every job whose image lies on it would end for good as if that were lost."""
    store = FileObjectStore(tmp_path, "bucket")
    store.ensure_bucket()
    store.put("a", b"an object", "image/png")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(ObjectStoreUnavailable):
            store.get("a", 100)
    assert store.get("a", 100) == b"an object"


def test_what_is_deleted_while_a_folder_is_walked_is_passed_over(tmp_path: Path) -> None:
    """The walk goes on behind it."""
    store = FileObjectStore(tmp_path, "bucket")
    store.ensure_bucket()
    for key in ("a", "b", "c"):
        store.put(key, b"x", "text/plain")
    walk = store.walk("")
    assert next(walk).key == "a"
    store.delete("b")
    assert [item.key for item in walk] == ["c"]


def test_a_folder_reads_what_rclone_wrote(object_server: ObjectServer) -> None:
    """It can take over where the server stopped."""
    bucket = f"test-{uuid4().hex[:12]}"
    server = S3ObjectStore(bucket, object_server.url, "us-east-1", PATIENCE)
    server.ensure_bucket()
    server.put("uploads/2026/a", b"by the server", "text/plain")
    files = FileObjectStore(object_server.folder, bucket)
    assert files.list_keys("") == ["uploads/2026/a"]
    assert files.get("uploads/2026/a", 100) == b"by the server"


def test_keys_are_walked_in_order(store: ObjectStore) -> None:
    """Also where a folder's name goes on in the name of a file beside it."""
    keys = ["a-b", "a/b", "a/c/d", "a0", "b"]
    for key in keys:
        store.put(key, b"x", "text/plain")
    assert [item.key for item in store.walk("")] == keys
    assert store.list_keys("a/") == ["a/b", "a/c/d"]
    assert store.list_keys("a") == keys[:-1]
    assert store.list_keys("a/c") == ["a/c/d"]


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


def test_a_folder_and_the_server_over_it_are_one_store(object_server: ObjectServer, tmp_path: Path) -> None:
    """What one side puts, replaces or deletes the other sees, also where it has looked before."""
    keys = object_server.access_key, object_server.secret_key
    server = ObjectServer(free_port(), *keys, tmp_path / "objects", is_shared=True)
    child = server.child(tmp_path / "server.log")
    child.start()
    try:
        assert wait_until(lambda: server.is_ready("bucket"), 20), child.log.read_text()
        files = FileObjectStore(server.folder, "bucket")
        s3 = S3ObjectStore("bucket", server.url, "us-east-1", PATIENCE)
        # The server looks again after a second; a folder is what it is.
        see_each_other(files, s3, within_seconds=3)
        see_each_other(s3, files, within_seconds=0)
        client = boto3.session.Session().client("s3", endpoint_url=server.url, region_name="us-east-1")
        assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["bucket"]
    finally:
        child.stop(5)


def see_each_other(writer: ObjectStore, reader: ObjectStore, within_seconds: float) -> None:
    """Write on one side, and look on the other."""

    def sees(expected: dict[str, bytes]) -> bool:
        try:
            found = reader.list_keys("some/")
            return found == sorted(expected) and {key: reader.get(key, 100) for key in found} == expected
        except ObjectStoreUnavailable:
            return False  # the server knew it by its former length

    written: dict[str, bytes] = {}
    assert wait_until(lambda: sees({}), within_seconds)
    for body in (b"first", b"second, and longer", b"3rd"):
        for number in range(5):
            key = f"some/{number}/image"
            writer.put(key, body, "image/png")
            written[key] = body
        assert wait_until(lambda: sees(written), within_seconds)
    for key in written:
        writer.delete(key)
    assert wait_until(lambda: sees({}), within_seconds)


def test_files_that_are_put_together_are_on_the_disk_before_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one go where the system can, else one by one: the contents before their names, and these at last."""
    store = FileObjectStore(tmp_path / "root", "bucket")
    store.ensure_bucket()
    new = [NewObject(f"r/{number}", b"x", "text/plain") for number in range(3)]
    synced: list[tuple[str, int]] = []

    def note(descriptor: int) -> int:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.parent.name if path.is_file() else path.name, len(store.list_keys("r/"))))
        return 0

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(object_store_files, "_LIBC", SimpleNamespace(syncfs=note))
        store.put_all(new, pool)
        assert synced == [(".partial", 0), ("r", 3)]
        for one in new:
            store.delete(one.key)
        synced.clear()
        monkeypatch.setattr(object_store_files, "_LIBC", SimpleNamespace())
        monkeypatch.setattr(object_store_files.os, "fsync", note)
        store.put_all(new, pool)
        assert synced == [*[(".partial", 0)] * 3, ("r", 3)]


def test_a_disk_that_keeps_nothing_of_several_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage, as it is with one; no name stands for what may be lost."""
    store = FileObjectStore(tmp_path / "root", "bucket")
    store.ensure_bucket()
    monkeypatch.setattr(object_store_files, "_LIBC", SimpleNamespace(syncfs=lambda _: -1))
    with ThreadPoolExecutor(1) as pool, pytest.raises(ObjectStoreUnavailable):
        store.put_all([NewObject("r/1", b"x", "text/plain")], pool)
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file()] == []
