"""What a folder promises beyond what every object store does."""

import errno
import io
import os
import resource
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import boto3.session
import pytest

from ops.processes import wait_until
from ops.servers import ObjectServer, free_port
from shared import object_store_files
from shared.errors import ObjectStoreUnavailable
from shared.object_store import NewObject, ObjectStore
from shared.object_store_files import PARTIAL, FileObjectStore
from shared.object_store_s3 import S3ObjectStore
from tests.contract.conftest import PATIENCE


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


def test_a_folder_is_asked_whether_there_is_room_on_its_own_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not on that of the system's temporary files."""
    store = FileObjectStore(tmp_path / "root", "bucket")
    store.ensure_bucket()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "full"))
    store.ping()


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


def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    """Of a day, or that of what is being written; but not the bucket: without it the disk may be another."""
    store = FileObjectStore(tmp_path, "b")
    store.ensure_bucket()
    for gone in ("b/uploads", PARTIAL):
        store.put("uploads/2026/one", b"x", "image/png")
        shutil.rmtree(tmp_path / gone)
    store.put("uploads/2026/one", b"y", "image/png")
    assert store.get("uploads/2026/one", 9) == b"y"
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(ObjectStoreUnavailable, match="no such bucket"):
        store.put("uploads/2026/one", b"z", "image/png")
    shutil.rmtree(tmp_path / PARTIAL)
    with pytest.raises(ObjectStoreUnavailable, match="no such bucket"):
        store.put("uploads/2026/one", b"z", "image/png")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_and_gives_a_little_at_a_time_is_written_and_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full one takes the rest of its room, and a network's file system gives what it has."""
    store = FileObjectStore(tmp_path, "b")
    store.ensure_bucket()
    body = bytes(range(256)) * 5_000
    write, read = os.write, os.read
    monkeypatch.setattr(object_store_files.os, "write", lambda file, block: write(file, block[:70_000]))
    monkeypatch.setattr(object_store_files.os, "read", lambda file, size: read(file, min(size, 70_000)))
    store.put("one", body, "image/png")
    store.put("two", io.BytesIO(body), "image/png")
    assert store.get("one", len(body)) == store.get("two", len(body)) == body


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
        patch.setattr(object_store_files.os, "open", fail)
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


def test_no_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may have a thousand or so, and lives for months; whatever came of the call."""
    store = FileObjectStore(tmp_path / "root", "bucket")
    store.ensure_bucket()
    before = open_files()
    store.put("u/one", b"image", "image/png")
    store.get("u/one", 10)
    with pytest.raises(ValueError, match="at most"):
        store.get("u/one", 1)
    with pytest.raises(FileNotFoundError):
        store.get("u", 10)
    with ThreadPoolExecutor(1) as pool:
        store.put_all([NewObject("r/1", b"x", "text/plain")], pool)
        monkeypatch.setattr(object_store_files, "_LIBC", SimpleNamespace())
        store.put_all([NewObject("s/1", b"x", "text/plain")], pool)
    assert open_files() == before


def open_files() -> int:
    """Return how many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))
