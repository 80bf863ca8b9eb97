"""Turn an evaluated run into an immutable model version: weights, manifest, golden tiles, terms."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import keras
from PIL import Image

from shared.manifest import (
    MANIFEST_NAME,
    ClassInfo,
    FileDigest,
    GoldenTile,
    InputSpec,
    Manifest,
    is_version,
    parse_manifest,
)
from training.architecture import FEATURES_LAYER, LOGITS_LAYER, count_multiply_accumulates
from training.calibrate import Calibration, read_calibration
from training.cross_validation import CrossValidation, digest_of_folds, release_folder
from training.dataset import Tile, digest_of_tiles
from training.errors import TrainingError
from training.evaluate import Figures, read_metrics
from training.experiment import Experiment
from training.report import copy_card
from training.run_folder import Run
from training.synthetic import draw_tile
from training.terms import INTENDED_USE, LICENCE, LICENCE_TEXT, NOTICE
from training.train import NETWORK_NAME, fitted_rows, read_history
from worker.engine.golden import check_golden, golden_probabilities
from worker.engine.predictor import Predictor

MODEL_NAME: Final = "lung-cnn"
WEIGHTS_NAME: Final = "model.keras"
#: What the weights file may weigh: it travels in the repository and to every worker.
MAX_WEIGHTS_BYTES: Final = 8_000_000
#: One drawn tile of each kind.
GOLDEN_SEEDS: Final = (1, 2, 3)
#: Machines differ in the last bits of float32; another model differs in the first decimals.
GOLDEN_TOLERANCE: Final = 0.002

CLASSES: Final = (
    ClassInfo(name="lung_n", label="Benign lung tissue", malignant=False),
    ClassInfo(name="lung_aca", label="Lung adenocarcinoma", malignant=True),
    ClassInfo(name="lung_scc", label="Lung squamous cell carcinoma", malignant=True),
)


@dataclass(frozen=True)
class Release:
    """Weights with everything that is said of them, ready to become a version."""

    #: The Keras archive.
    network: Path
    input: InputSpec
    calibration: Calibration
    #: Flat figures for the manifest.
    metrics: Figures
    training: Figures
    #: The folder with the card and its plots, or None where only a single run was scored.
    report: Path | None


def release_of_run(run: Run) -> Release:
    """Return what a single evaluated run publishes.

    Raises:
        TrainingError: if the run is not trained, calibrated and evaluated.
    """
    metrics = read_metrics(run.folder)  # first: of all that may be missing, it is the last step
    return Release(
        network=run.folder / NETWORK_NAME,
        input=run.experiment.input,
        calibration=read_calibration(run.folder),
        metrics=metrics,
        training=_history(run),
        report=None,
    )


def release_of_folds(folds: CrossValidation) -> Release:
    """Return what an evaluated cross-validation publishes: the weights that all clusters trained.

    Raises:
        TrainingError: if the release is not trained, or the folds are not calibrated and evaluated.
    """
    folder = release_folder(folds)
    if folder is None:
        raise TrainingError(f"Expected a release in {folds.folder}. Run `train --release` on it first.")
    calibration = read_calibration(folds.folder)
    if calibration.gates.features is None:
        raise TrainingError(
            f"Expected {folds.folder} to be calibrated with its release. Run `calibrate` again."
        )
    history = read_history(folder)
    return Release(
        network=folder / NETWORK_NAME,
        input=folds.experiment.input,
        calibration=calibration,
        metrics=read_metrics(folds.folder),
        training={
            **_data_facts(folds.tiles, folds.experiment),
            "folds_sha256": digest_of_folds(folds.digests),
            "train_clusters": len({tile.cluster for tile in folds.tiles}),
            "epochs": len(history),
            "seconds": round(sum(record["seconds"] for record in history)),
        },
        report=folds.folder,
    )


def publish_release(release: Release, models: Path, version: str) -> Path:
    """Write the version's folder under `models` and return it; it appears complete or not at all.

    Raises:
        TrainingError: if the version is no version number or exists already, or the weights are too large.
    """
    folder = models / f"{MODEL_NAME}-{version}"
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


def _check_free(folder: Path, version: str) -> None:
    if not is_version(version):
        raise TrainingError(f"Expected a version like 1.2.3. Received: {version}")
    if folder.exists():
        raise TrainingError(f"Expected a new version: {folder} exists, and a version never changes.")


def _write_version(release: Release, folder: Path, version: str) -> None:
    shutil.copyfile(release.network, folder / WEIGHTS_NAME)
    (folder / "LICENSE").write_text(LICENCE_TEXT, encoding="utf-8", newline="\n")
    (folder / "NOTICE").write_text(NOTICE, encoding="utf-8", newline="\n")
    if release.report is not None:
        copy_card(release.report, folder, f"{MODEL_NAME} {version}")
    names = [f"golden-{seed}.png" for seed in GOLDEN_SEEDS]
    for seed, name in zip(GOLDEN_SEEDS, names, strict=True):
        Image.fromarray(draw_tile(seed)).save(folder / name, optimize=True)
    manifest = _with_golden(_describe(release, folder, version, names), folder)
    text = manifest.model_dump_json(indent=1) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8", newline="\n")
    _prove(folder)


def _describe(release: Release, folder: Path, version: str, golden: list[str]) -> Manifest:
    """Return the manifest with golden answers still to be filled in."""
    calibration = release.calibration
    even = (1 / len(CLASSES),) * len(CLASSES)
    return Manifest(
        name=MODEL_NAME,
        version=version,
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        licence=LICENCE,
        intended_use=INTENDED_USE,
        weights=WEIGHTS_NAME,
        logits_layer=LOGITS_LAYER,
        features_layer=FEATURES_LAYER,
        classes=CLASSES,
        input=release.input,
        temperature=calibration.temperature,
        indeterminate_below=calibration.indeterminate_below,
        gates=calibration.gates,
        golden=tuple(GoldenTile(file=name, probabilities=even) for name in golden),
        golden_tolerance=GOLDEN_TOLERANCE,
        files=tuple(_digest(path) for path in sorted(folder.iterdir())),
        metrics={**release.metrics, **_size(release.network)},
        training={**release.training, "keras": keras.version()},
    )


def _with_golden(draft: Manifest, folder: Path) -> Manifest:
    """Return the manifest with what the worker's own predictor answers for the golden tiles."""
    predictor = Predictor(folder / WEIGHTS_NAME, draft, threads=1)
    rows = golden_probabilities(predictor, draft, folder)
    golden = tuple(
        tile.model_copy(update={"probabilities": tuple(round(float(value), 6) for value in row)})
        for tile, row in zip(draft.golden, rows, strict=True)
    )
    return draft.model_copy(update={"golden": golden})


def _prove(folder: Path) -> None:
    """Read the version back as a worker would."""
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    check_golden(Predictor(folder / WEIGHTS_NAME, manifest, threads=1), manifest, folder)


def _digest(path: Path) -> FileDigest:
    data = path.read_bytes()
    if path.name == WEIGHTS_NAME and len(data) > MAX_WEIGHTS_BYTES:
        raise TrainingError(f"Expected weights of at most {MAX_WEIGHTS_BYTES} bytes. Received: {len(data)}")
    return FileDigest(name=path.name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _size(path: Path) -> Figures:
    network = keras.models.load_model(path, compile=False)
    if {str(weight.dtype) for weight in network.weights} != {"float32"}:
        raise TrainingError(f"Expected float32 weights in {path}. Received others.")
    return {
        "multiply_accumulates": count_multiply_accumulates(network),
        "parameters": int(network.count_params()),
    }


def _history(run: Run) -> Figures:
    history = read_history(run.folder)
    fitted = fitted_rows(run.split, run.experiment.train)
    return {
        **_data_facts(run.tiles, run.experiment),
        "split_sha256": run.split_digest,
        "test_fold": f"{run.experiment.split.test_fold + 1} of {run.experiment.split.test_folds}",
        "train_clusters": len({run.tiles[row].cluster for row in fitted}),
        "epochs": len(history),
        "seconds": round(sum(record["seconds"] for record in history)),
    }


def _data_facts(tiles: Sequence[Tile], experiment: Experiment) -> Figures:
    return {
        "dataset": "LC25000 lung, split by the clusters of LC25000-clean",
        "dataset_sha256": digest_of_tiles(tiles),
        "split_seed": experiment.split.seed,
        "seed": experiment.train.seed,
    }
