"""Versions of the bundled model that are broken in one way each, their digests in order all the same.

An operator could publish any of these: a digest proves that a file is the published one, not that it is well.
"""

import hashlib
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ops.prepare import newest_bundled_model
from shared.manifest import MANIFEST_NAME

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
#: What a bomb unpacks to; packed it has a thousandth of that.
BOMB_BYTES = 800_000_000


def write_spoiled(name: str | None, folder: Path) -> Path:
    """Write the spoiled version of this name into a new folder; None: a sound one."""
    shutil.copytree(newest_bundled_model(), folder)
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    if name is not None:
        SPOILED[name](folder, manifest)
    for file in manifest["files"]:
        if (folder / file["name"]).exists():
            body = (folder / file["name"]).read_bytes()
            # A missing or empty file has no digest of its own: what the manifest says stays.
            if body:
                file.update(bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
    path.write_text(json.dumps(manifest))
    return folder


def _archive(folder: Path, manifest: dict[str, Any]) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / manifest["weights"]) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write_archive(folder: Path, manifest: dict[str, Any], members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(folder / manifest["weights"], "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)


def _change_weights(folder: Path, manifest: dict[str, Any], change: Callable[[Any], Any]) -> None:
    """Replace the values of every array in the weights."""
    members = _archive(folder, manifest)
    file = io.BytesIO(members[WEIGHTS])
    with h5py.File(file, "r+") as weights:
        arrays: list[Any] = []
        weights.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        for array in arrays:
            array[...] = change(np.asarray(array))
    _write_archive(folder, manifest, {**members, WEIGHTS: file.getvalue()})


def _change_config(folder: Path, manifest: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    members = _archive(folder, manifest)
    config = json.loads(members[CONFIG])
    change(config)
    _write_archive(folder, manifest, {**members, CONFIG: json.dumps(config).encode()})


def _remove(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / manifest["weights"]).unlink()


def _truncate(folder: Path, manifest: dict[str, Any]) -> None:
    path = folder / manifest["weights"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_bits(folder: Path, manifest: dict[str, Any]) -> None:
    path, dice = folder / manifest["weights"], random.Random(20261122)
    body = bytearray(path.read_bytes())
    for _ in range(200):
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    path.write_bytes(body)


def _flip_bits_inside(folder: Path, manifest: dict[str, Any]) -> None:
    """Under the archive's own checksums."""
    members, dice = _archive(folder, manifest), random.Random(20261122)
    body = bytearray(members[WEIGHTS])
    for _ in range(2000):
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    _write_archive(folder, manifest, {**members, WEIGHTS: bytes(body)})


def _truncate_inside(folder: Path, manifest: dict[str, Any]) -> None:
    members = _archive(folder, manifest)
    _write_archive(folder, manifest, {**members, WEIGHTS: members[WEIGHTS][:100_000]})


def _make_hdf5(folder: Path, manifest: dict[str, Any]) -> None:
    old = manifest["weights"]
    manifest["weights"] = "model.h5"
    (folder / "model.h5").write_bytes(_archive(folder, {"weights": old})[WEIGHTS])
    next(file for file in manifest["files"] if file["name"] == old)["name"] = "model.h5"


def _add_code(folder: Path, manifest: dict[str, Any]) -> None:
    """Turn a layer into a Lambda layer: Python that would run when the model is loaded."""

    def change(config: dict[str, Any]) -> None:
        layer = config["config"]["layers"][1]
        layer["class_name"] = "Lambda"
        code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
        layer["config"] = {"name": layer["name"], "function": code}

    _change_config(folder, manifest, change)


def _name_another_class(folder: Path, manifest: dict[str, Any]) -> None:
    """Ask for a Python object that is no layer."""

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1].update(module="os", class_name="system", registered_name="system")

    _change_config(folder, manifest, change)


def _another_input(folder: Path, manifest: dict[str, Any]) -> None:
    manifest["input"].update(width=64, height=64)


def _another_class(folder: Path, manifest: dict[str, Any]) -> None:
    manifest["classes"].append({"name": "fourth", "label": "Fourth", "malignant": False})
    for tile in manifest["golden"]:
        tile["probabilities"].append(0.0)


def _bomb(member: str) -> Callable[[Path, dict[str, Any]], None]:
    """Put a member into the archive that unpacks to far more than a model has."""

    def spoil(folder: Path, manifest: dict[str, Any]) -> None:
        members = _archive(folder, manifest)
        with zipfile.ZipFile(folder / manifest["weights"], "w", zipfile.ZIP_DEFLATED) as archive:
            for name, body in members.items():
                if name != member:
                    archive.writestr(name, body)
            with archive.open(member, "w", force_zip64=True) as file:
                for _ in range(BOMB_BYTES // 10_000_000):
                    file.write(b" " * 10_000_000)

    return spoil


def _vast_array(folder: Path, manifest: dict[str, Any]) -> None:
    """Declare an array of 8 TB that holds nothing: its shape alone would fill the memory."""
    members = _archive(folder, manifest)
    file = io.BytesIO(members[WEIGHTS])
    with h5py.File(file, "r+") as weights:
        names: list[str] = []
        weights.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        del weights[names[0]]
        weights.create_dataset(names[0], shape=(2_000_000, 1_000_000), dtype="f4", chunks=(1000, 1000))
    _write_archive(folder, manifest, {**members, WEIGHTS: file.getvalue()})


SPOILED: Mapping[str, Callable[[Path, dict[str, Any]], None]] = {
    "the archive is missing": _remove,
    "the archive is truncated": _truncate,
    "bits of the archive are flipped": _flip_bits,
    "bits of the weights are flipped": _flip_bits_inside,
    "the weights are truncated": _truncate_inside,
    "every weight is not a number": lambda folder, manifest: _change_weights(
        folder, manifest, lambda array: np.full_like(array, np.nan)
    ),
    "every weight is zero": lambda folder, manifest: _change_weights(folder, manifest, np.zeros_like),
    "the weights are an HDF5 file": _make_hdf5,
    "a layer is code": _add_code,
    "a layer is a function of Python": _name_another_class,
    "the manifest states another input": _another_input,
    "the manifest states another class": _another_class,
    "the weights are a bomb": _bomb(WEIGHTS),
    "the architecture is a bomb": _bomb(CONFIG),
    "an array of the weights is vast": _vast_array,
}
