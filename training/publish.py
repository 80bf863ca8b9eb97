"""Turn a release into the folder of an immutable model version."""

import shutil
from pathlib import Path
from typing import Final

from PIL import Image

from shared.manifest import is_version
from training.convert import add_converted
from training.errors import TrainingError
from training.reference import check_backend
from training.release import Release
from training.report import copy_card
from training.synthetic import draw_tile
from training.terms import LICENCE_TEXT, NOTICE_NAME
from training.version_manifest import MODEL_NAME, WEIGHTS_NAME, write_manifest

#: One drawn tile of each kind.
GOLDEN_SEEDS: Final = (1, 2, 3)


def publish_release(release: Release, models: Path, version: str) -> Path:
    """Write the version's folder under `models` and return it; it appears complete or not at all.

    Raises:
        TrainingError: if the version is no version number or exists already, the weights are too large, or
            Keras does not run on TensorFlow.
    """
    check_backend()
    folder = version_folder(models, version)
    _check_free(folder, version)
    unfinished = models / f".{folder.name}.part"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write_version(release, unfinished, version)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def version_folder(models: Path, version: str) -> Path:
    """Return where a version lies, or would."""
    return models / f"{MODEL_NAME}-{version}"


def _check_free(folder: Path, version: str) -> None:
    if not is_version(version):
        raise TrainingError(f"Expected a version like 1.2.3. Received: {version}")
    if folder.exists():
        raise TrainingError(f"Expected a new version: {folder} exists, and a version never changes.")


def _write_version(release: Release, folder: Path, version: str) -> None:
    shutil.copyfile(release.network, folder / WEIGHTS_NAME)
    (folder / "LICENSE").write_text(LICENCE_TEXT, encoding="utf-8", newline="\n")
    (folder / NOTICE_NAME).write_text(release.notice, encoding="utf-8", newline="\n")
    if release.report is not None:
        copy_card(release.report, folder, f"{MODEL_NAME} {version}")
    names = [f"golden-{seed}.png" for seed in GOLDEN_SEEDS]
    for seed, name in zip(GOLDEN_SEEDS, names, strict=True):
        Image.fromarray(draw_tile(seed)).save(folder / name, optimize=True)
    write_manifest(release, folder, version, names)
    add_converted(folder)
