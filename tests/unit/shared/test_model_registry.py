"""Model versions in a bucket: whole, unaltered, and never changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidModel, NoModel, ObjectStoreUnavailable, UnknownModelVersion
from shared.model_registry import ModelRegistry
from shared.object_store_memory import MemoryObjectStore
from shared.schemas import ModelRef
from tests.factories import write_model

WEIGHTS = "models/lung-cnn/1.0.0/weights.keras"
MANIFEST = "models/lung-cnn/1.0.0/manifest.json"


@pytest.fixture
def store() -> MemoryObjectStore:
    """An empty bucket."""
    return MemoryObjectStore()


@pytest.fixture
def registry(store: MemoryObjectStore) -> ModelRegistry:
    """The versions in it."""
    return ModelRegistry(store, "lung-cnn")


@pytest.fixture
def live(registry: ModelRegistry, tmp_path: Path) -> ModelRef:
    """A published version."""
    return registry.publish(write_model(tmp_path / "one"))


def test_an_empty_bucket_has_no_model(registry: ModelRegistry) -> None:
    """That is a state to wait in, not a broken model."""
    assert registry.versions() == []
    with pytest.raises(NoModel):
        registry.live()


def test_versions_of_which_none_is_live_are_not_called_unpublished(
    registry: ModelRegistry, store: MemoryObjectStore, live: ModelRef
) -> None:
    """Somebody removed the file that names the live one: `ops.models use` writes it anew."""
    assert registry.versions() == [live.version]
    store.delete("models/lung-cnn/current.json")
    fresh = ModelRegistry(store, "lung-cnn")
    with pytest.raises(NoModel, match=r"No version of lung-cnn is live\."):
        fresh.live()
    assert fresh.make_live(live.version) == live
    assert fresh.live() == live


def test_a_published_version_is_live_and_can_be_fetched(
    registry: ModelRegistry, live: ModelRef, tmp_path: Path
) -> None:
    """What was published lies in the folder, every file of it."""
    assert registry.live() == live
    assert registry.versions() == ["1.0.0"]
    folder = registry.fetch(live, tmp_path / "cache")
    assert (folder / "weights.keras").read_bytes() == b"weights of 1.0.0"
    assert sorted(path.name for path in folder.iterdir()) == [
        "golden-0.png",
        "manifest.json",
        "weights.keras",
    ]


def test_versions_are_in_the_order_of_their_numbers(registry: ModelRegistry, tmp_path: Path) -> None:
    """1.10.0 comes after 1.9.0, and the last published one is live."""
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        registry.publish(write_model(tmp_path / version, version))
    assert registry.versions() == ["1.2.0", "1.9.0", "1.10.0"]
    assert registry.live().version == "1.2.0"


def test_another_models_version_is_refused_before_any_of_it_is_stored(
    registry: ModelRegistry, store: MemoryObjectStore, tmp_path: Path
) -> None:
    """Under our name it would be listed for ever, and its number be taken."""
    with pytest.raises(InvalidModel, match=r"a version of lung-cnn.*Found: colon-cnn 1\.0\.0"):
        registry.publish(write_model(tmp_path / "other", model="colon-cnn"))
    assert store.list_keys("") == []


def test_a_version_never_changes(registry: ModelRegistry, live: ModelRef, tmp_path: Path) -> None:
    """Publishing the same files again is fine; other files under the same number are refused."""
    assert registry.publish(tmp_path / "one") == live
    other = write_model(tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "licence": "another"}))
    with pytest.raises(InvalidModel, match="versions never change"):
        registry.publish(other)


@pytest.mark.parametrize(
    "body",
    [b"", b"weights of 1.0.", b"weights of 1.0.1", b"weights of 1.0.0 and more"],
    ids=["empty", "truncated", "one byte flipped", "longer"],
)
def test_altered_weights_are_never_handed_out(
    registry: ModelRegistry, store: MemoryObjectStore, live: ModelRef, tmp_path: Path, body: bytes
) -> None:
    """Size and digest are checked before the file lies where anything could open it."""
    store.put(WEIGHTS, body, "")
    with pytest.raises(InvalidModel, match="weights"):
        registry.fetch(live, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("weights.keras"))


def test_what_is_damaged_of_a_version_is_mended_by_publishing_it_once_more(
    registry: ModelRegistry, store: MemoryObjectStore, live: ModelRef, tmp_path: Path
) -> None:
    """As the error advises; a folder that is damaged itself mends nothing."""
    folder = write_model(tmp_path / "again")
    key = f"models/{live.name}/{live.version}/{registry.manifest(live.version).weights}"
    sound = store.get(key, 10_000_000)
    for damage in (lambda: store.put(key, b"x", "application/octet-stream"), lambda: store.delete(key)):
        damage()
        with pytest.raises(InvalidModel):
            registry.fetch(live, tmp_path / "cache")
        assert registry.publish(folder) == live
        assert store.get(key, 10_000_000) == sound
    store.delete(key)
    (folder / registry.manifest(live.version).weights).write_bytes(b"x")
    with pytest.raises(InvalidModel):
        registry.publish(folder)


def test_deleted_weights_are_told(
    registry: ModelRegistry, store: MemoryObjectStore, live: ModelRef, tmp_path: Path
) -> None:
    """A hole in the bucket is the operator's to mend."""
    store.delete(WEIGHTS)
    with pytest.raises(InvalidModel, match="missing"):
        registry.fetch(live, tmp_path / "cache")


def test_weights_that_were_swapped_with_their_manifest_are_not_those_of_the_job(
    registry: ModelRegistry, live: ModelRef, tmp_path: Path
) -> None:
    """A job is pinned to a digest, not to a name."""
    swapped = ModelRef(name=live.name, version=live.version, sha256="f" * 64)
    with pytest.raises(InvalidModel, match="Expected weights with sha256 ffff"):
        registry.fetch(swapped, tmp_path / "cache")


def test_a_manifest_that_is_not_the_published_one_is_refused(
    store: MemoryObjectStore, live: ModelRef
) -> None:
    """The pointer to the live version carries the manifest's digest."""
    manifest = json.loads(store.get(MANIFEST, 100_000))
    store.put(MANIFEST, json.dumps({**manifest, "temperature": 9.0}).encode(), "")
    with pytest.raises(InvalidModel, match="Expected the manifest"):
        ModelRegistry(store, "lung-cnn").live()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"version": "1.0.0"}'])
def test_a_manifest_that_is_none_names_what_is_missing(
    registry: ModelRegistry, store: MemoryObjectStore, live: ModelRef, text: bytes
) -> None:
    """Not a traceback, a sentence."""
    store.put(MANIFEST, text, "")
    with pytest.raises(InvalidModel, match=r"Expected a complete manifest\.json"):
        registry.manifest("1.0.0")


@pytest.mark.parametrize("version", ["2.0.0", "", "latest", "../1.0.0", "1.0.0/../../uploads", "1" * 500])
def test_an_unknown_version_is_the_callers_mistake(
    registry: ModelRegistry, live: ModelRef, version: str
) -> None:
    """No text of a caller's ever becomes a key."""
    with pytest.raises(UnknownModelVersion):
        registry.reference(version)


def test_a_cached_file_that_was_altered_is_fetched_again(
    registry: ModelRegistry, live: ModelRef, tmp_path: Path
) -> None:
    """The disk is checked as the bucket is."""
    folder = registry.fetch(live, tmp_path / "cache")
    (folder / "weights.keras").write_bytes(b"weights of 6.6.6")
    assert (registry.fetch(live, tmp_path / "cache") / "weights.keras").read_bytes() == b"weights of 1.0.0"


def test_a_folder_that_lacks_a_file_is_not_published(
    registry: ModelRegistry, store: MemoryObjectStore, tmp_path: Path
) -> None:
    """Without its manifest a version does not exist, so half of one is never seen."""
    folder = write_model(tmp_path / "one")
    (folder / "golden-0.png").unlink()
    with pytest.raises(InvalidModel, match=r"Expected golden-0\.png"):
        registry.publish(folder)
    with pytest.raises(NoModel):
        registry.live()
    assert MANIFEST not in store.list_keys("")


@pytest.mark.parametrize("breaks_off_after", [0, 1, 2])
def test_an_upload_that_broke_off_is_no_version_and_can_be_repeated(
    store: MemoryObjectStore, registry: ModelRegistry, tmp_path: Path, breaks_off_after: int
) -> None:
    """Wherever the store went away: nobody sees half a version, and the same command ends well later."""
    folder = write_model(tmp_path / "one")
    put, sent = store.put, []

    def put_until_it_breaks(key: str, *rest: Any) -> None:
        if len(sent) == breaks_off_after:
            raise ObjectStoreUnavailable("gone")
        sent.append(key)
        put(key, *rest)

    store.put = put_until_it_breaks  # type: ignore[method-assign]
    with pytest.raises(ObjectStoreUnavailable):
        registry.publish(folder)
    assert registry.versions() == []
    with pytest.raises(NoModel):
        registry.live()
    store.put = put  # type: ignore[method-assign]
    assert registry.publish(folder).version == "1.0.0"
    assert registry.versions() == ["1.0.0"]


def test_nothing_of_an_altered_folder_is_sent(
    store: MemoryObjectStore, registry: ModelRegistry, tmp_path: Path
) -> None:
    """Every file is checked before the first one leaves, whichever of them is wrong."""
    folder = write_model(tmp_path / "one")
    with (folder / "golden-0.png").open("ab") as tile:
        tile.write(b"x")
    with pytest.raises(InvalidModel, match=r"Expected golden-0\.png with"):
        registry.publish(folder)
    assert list(store.list_keys("")) == []


def test_an_older_version_can_be_live_again(registry: ModelRegistry, live: ModelRef, tmp_path: Path) -> None:
    """At once for this process, which may answer the next request."""
    registry.publish(write_model(tmp_path / "two", "2.0.0"))
    assert registry.make_live("1.0.0") == live
    assert registry.live() == live
    with pytest.raises(UnknownModelVersion):
        registry.make_live("3.0.0")
    assert registry.live() == live


def test_a_version_that_is_damaged_does_not_become_the_live_one(
    registry: ModelRegistry, store: MemoryObjectStore, live: ModelRef, tmp_path: Path
) -> None:
    """The one before it goes on, in every process."""
    registry.publish(write_model(tmp_path / "two", "2.0.0"))
    registry.make_live("1.0.0")
    store.put(MANIFEST.replace("1.0.0", "2.0.0"), b"{}", "")
    with pytest.raises(InvalidModel):
        registry.make_live("2.0.0")
    assert ModelRegistry(store, "lung-cnn").live() == live
