"""What an object store promises, held against rclone, moto, a folder and the one in memory."""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from ops.servers import ObjectServer
from shared.object_store import NewObject, ObjectStore
from shared.object_store_files import FileObjectStore
from shared.object_store_memory import MemoryObjectStore
from shared.object_store_s3 import S3ObjectStore, S3Options
from shared.schemas import wall_clock_ms
from tests.contract.conftest import PATIENCE
from tests.tls import TlsFront, make_certificates


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


def test_keys_are_walked_in_order(store: ObjectStore) -> None:
    """Also where a folder's name goes on in the name of a file beside it."""
    keys = ["a-b", "a/b", "a/c/d", "a0", "b"]
    for key in keys:
        store.put(key, b"x", "text/plain")
    assert [item.key for item in store.walk("")] == keys
    assert store.list_keys("a/") == ["a/b", "a/c/d"]
    assert store.list_keys("a") == keys[:-1]
    assert store.list_keys("a/c") == ["a/c/d"]
