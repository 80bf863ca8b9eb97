"""Model versions in a bucket: publish, list, choose the live one, fetch with every byte checked.

    models/<name>/<version>/manifest.json and the files that it lists; immutable
    models/<name>/current.json              which version is live, and its manifest's digest

It never opens weights.
"""

import hashlib
import json
import threading
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from shared.errors import InvalidModel, NoModel, UnknownModelVersion
from shared.manifest import MANIFEST_NAME, FileDigest, Manifest, is_version, parse_manifest
from shared.object_store import ObjectStore
from shared.schemas import ModelRef

#: How long a process believes what it last read about the live version.
LIVE_CACHE_SECONDS = 10
_MAX_MANIFEST_BYTES = 5_000_000


class _Current(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: str
    manifest_sha256: str


class ModelRegistry:
    """The versions of one model."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name
        self._live: tuple[float, ModelRef] | None = None

    def live(self) -> ModelRef:
        """Return the version that new jobs are pinned to, as read at most `LIVE_CACHE_SECONDS` ago.

        Raises:
            NoModel: if no version was ever published.
        """
        live = self._live
        if live is None or time.monotonic() - live[0] > LIVE_CACHE_SECONDS:
            # No lock: behind a store that hangs, readers would wait for the sum of their time-outs.
            live = self._live = (time.monotonic(), self._read_live())
        return live[1]

    def _read_live(self) -> ModelRef:
        try:
            current = _Current.model_validate_json(self._store.get(self._key("current.json"), 10_000))
        except FileNotFoundError:
            raise NoModel(
                f"No version of {self._name} is live. Publish one, or choose a published one; then ask again."
            ) from None
        except ValueError as error:
            raise InvalidModel(
                f"Expected a version in current.json of {self._name}. Found: something else; "
                "`python -m ops.models use VERSION` writes it anew."
            ) from error
        return self.reference(current.version, current.manifest_sha256)

    def reference(self, version: str, manifest_sha256: str | None = None) -> ModelRef:
        """Return what a job pins: the version and its weights' digest.

        Raises:
            UnknownModelVersion: if there is no such version.
            InvalidModel: if its manifest is not the expected one.
        """
        text = self._read_manifest(version)
        if manifest_sha256 is not None and _sha256(text) != manifest_sha256:
            raise InvalidModel(
                f"Expected the manifest of {self._name} {version} to have sha256 {manifest_sha256}. "
                f"Found: {_sha256(text)}"
            )
        manifest = self._checked(text, version)
        return ModelRef(name=self._name, version=version, sha256=manifest.digest_of(manifest.weights).sha256)

    def manifest(self, version: str) -> Manifest:
        """Return the facts about one version.

        Raises:
            UnknownModelVersion: if there is no such version.
        """
        return self._checked(self._read_manifest(version), version)

    def read(self, version: str, file: str) -> bytes:
        """Return one file of a version, as it was published.

        Raises:
            UnknownModelVersion: if there is no such version.
            InvalidModel: if the version lists no such file, or it is missing or altered.
        """
        manifest = self.manifest(version)
        return self._read_file(version, manifest.digest_of(file))

    def versions(self) -> list[str]:
        """Return every published version, oldest number first."""
        prefix = self._key("")
        end = f"/{MANIFEST_NAME}"  # what an upload that broke off left behind is no version
        keys = [key for key in self._store.list_keys(prefix) if key.endswith(end)]
        names = {key.removeprefix(prefix).removesuffix(end) for key in keys}
        return sorted(filter(is_version, names), key=lambda text: tuple(map(int, text.split("."))))

    def publish(self, folder: Path) -> ModelRef:
        """Copy a version's folder into the bucket, check it, and make it the live one.

        One that is published is checked, and what is damaged or missing of it is put there once more.

        Raises:
            InvalidModel: if a file is missing or altered, it is another model's version, or another build of
                this version is published.
        """
        text = _read_local(folder / MANIFEST_NAME)
        manifest = parse_manifest(text)
        if manifest.name != self._name:
            raise InvalidModel(
                f"Expected a version of {self._name}, which MODEL_NAME names. "
                f"Found: {manifest.name} {manifest.version}"
            )
        is_published = manifest.version in self.versions()
        if is_published and self._read_manifest(manifest.version) != text:
            raise InvalidModel(
                f"Expected a new version number: {self._name} {manifest.version} is published "
                "and versions never change."
            )
        wanted = [
            file for file in manifest.files if not (is_published and self._is_sound(manifest.version, file))
        ]
        # All are checked before the first is sent.
        bodies = {file.name: _read_checked(folder, file) for file in wanted}
        for name, body in bodies.items():
            self._store.put(self._key(f"{manifest.version}/{name}"), body, "application/octet-stream")
        if not is_published:
            # Last: a version without its manifest does not exist.
            self._store.put(self._key(f"{manifest.version}/{MANIFEST_NAME}"), text, "application/json")
        return self.make_live(manifest.version)

    def make_live(self, version: str) -> ModelRef:
        """Have new jobs pinned to a published version; processes know of it within `LIVE_CACHE_SECONDS`.

        Raises:
            UnknownModelVersion: if there is no such version.
            InvalidModel: if its manifest is not one.
        """
        text = self._read_manifest(version)
        self._checked(text, version)
        self._store.put(
            self._key("current.json"),
            json.dumps({"version": version, "manifest_sha256": _sha256(text)}).encode(),
            "application/json",
        )
        self._live = None
        return self.live()

    def fetch(self, reference: ModelRef, cache: Path) -> Path:
        """Return a folder with the version's files, each checked by size and sha256 before anybody opens it.

        Raises:
            UnknownModelVersion: if there is no such version.
            InvalidModel: if a file is missing or altered, or the weights are not those of the reference.
        """
        text = self._read_manifest(reference.version)
        manifest = self._checked(text, reference.version)
        if manifest.digest_of(manifest.weights).sha256 != reference.sha256:
            raise InvalidModel(
                f"Expected weights with sha256 {reference.sha256} for {self._name} {reference.version}. "
                f"The manifest lists: {manifest.digest_of(manifest.weights).sha256}"
            )
        folder = cache / f"{self._name}-{reference.version}-{_sha256(text)[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in manifest.files:
            if not _is_there(folder / file.name, file):
                _write_whole(folder / file.name, self._read_file(reference.version, file))
        _write_whole(folder / MANIFEST_NAME, text)
        return folder

    def _read_file(self, version: str, file: FileDigest) -> bytes:
        try:
            body = self._store.get(self._key(f"{version}/{file.name}"), file.bytes)
        except (FileNotFoundError, ValueError) as error:
            raise InvalidModel(f"{self._name} {version}: {file.name} is missing or too large") from error
        _check(file, body)
        return body

    def _is_sound(self, version: str, file: FileDigest) -> bool:
        try:
            self._read_file(version, file)
        except InvalidModel:
            return False
        return True

    def _read_manifest(self, version: str) -> bytes:
        if not is_version(version):
            raise UnknownModelVersion(f"Expected a model version such as 1.0.0. Received: {version[:40]!r}")
        try:
            return self._store.get(self._key(f"{version}/{MANIFEST_NAME}"), _MAX_MANIFEST_BYTES)
        except FileNotFoundError:
            raise UnknownModelVersion(f"{self._name} has no version {version}.") from None

    def _checked(self, text: bytes, version: str) -> Manifest:
        manifest = parse_manifest(text)
        if (manifest.name, manifest.version) != (self._name, version):
            raise InvalidModel(
                f"Expected the manifest of {self._name} {version}. Found: {manifest.name} {manifest.version}"
            )
        return manifest

    def _key(self, rest: str) -> str:
        return f"models/{self._name}/{rest}"


def _read_local(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidModel(f"Expected {path.name} in the version's folder {path.parent}.") from error


def _read_checked(folder: Path, file: FileDigest) -> bytes:
    body = _read_local(folder / file.name)
    _check(file, body)
    return body


def _check(file: FileDigest, body: bytes) -> None:
    if len(body) != file.bytes or _sha256(body) != file.sha256:
        raise InvalidModel(
            f"Expected {file.name} with {file.bytes} bytes and sha256 {file.sha256}. "
            f"Found: {len(body)} bytes, {_sha256(body)}"
        )


def _is_there(path: Path, file: FileDigest) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes and _sha256(path.read_bytes()) == file.sha256


def _write_whole(path: Path, body: bytes) -> None:
    """Write the file so that nobody ever sees half of it."""
    partial = path.with_name(f".{path.name}.{threading.get_ident()}.partial")
    partial.write_bytes(body)
    partial.replace(path)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
