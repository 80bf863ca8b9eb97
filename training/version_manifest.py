"""Write the manifest of a version whose other files lie in their folder, and prove it as a worker would."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import keras

from shared.manifest import (
    MANIFEST_NAME,
    ClassInfo,
    FileDigest,
    GoldenTile,
    Manifest,
    digest_of_file,
    parse_manifest,
)
from training.architecture import FEATURES_LAYER, LOGITS_LAYER, count_multiply_accumulates
from training.errors import TrainingError
from training.evaluate import Figures
from training.reference import load_reference
from training.release import Release
from training.terms import INTENDED_USE, LICENCE
from worker.engine.golden import check_golden, golden_probabilities

MODEL_NAME: Final = "lung-cnn"
WEIGHTS_NAME: Final = "model.keras"
#: What the weights file may weigh: it travels in the repository and to every worker.
MAX_WEIGHTS_BYTES: Final = 8_000_000
#: Machines differ in the last bits of float32; another model differs in the first decimals.
GOLDEN_TOLERANCE: Final = 0.002

CLASSES: Final = (
    ClassInfo(name="lung_n", label="Benign lung tissue", malignant=False),
    ClassInfo(name="lung_aca", label="Lung adenocarcinoma", malignant=True),
    ClassInfo(name="lung_scc", label="Lung squamous cell carcinoma", malignant=True),
)


def write_manifest(release: Release, folder: Path, version: str, golden: Sequence[str]) -> None:
    """Describe every file in the folder, with what the golden tiles of these names answer now.

    Raises:
        TrainingError: if the weights are too large, or not float32.
    """
    manifest = _with_golden(_describe(release, folder, version, golden), folder)
    text = manifest.model_dump_json(indent=1) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8", newline="\n")
    _prove(folder)


def _describe(release: Release, folder: Path, version: str, golden: Sequence[str]) -> Manifest:
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
    predictor = load_reference(folder / WEIGHTS_NAME, draft)
    rows = golden_probabilities(predictor, draft, folder)
    golden = tuple(
        tile.model_copy(update={"probabilities": tuple(round(float(value), 6) for value in row)})
        for tile, row in zip(draft.golden, rows, strict=True)
    )
    return draft.model_copy(update={"golden": golden})


def _prove(folder: Path) -> None:
    """Read the version back as a worker would."""
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    check_golden(load_reference(folder / WEIGHTS_NAME, manifest), manifest, folder)


def _digest(path: Path) -> FileDigest:
    file = digest_of_file(path)
    if path.name == WEIGHTS_NAME and file.bytes > MAX_WEIGHTS_BYTES:
        raise TrainingError(f"Expected weights of at most {MAX_WEIGHTS_BYTES} bytes. Received: {file.bytes}")
    return file


def _size(path: Path) -> Figures:
    network = keras.models.load_model(path, compile=False)
    if {str(weight.dtype) for weight in network.weights} != {"float32"}:
        raise TrainingError(f"Expected float32 weights in {path}. Received others.")
    return {
        "multiply_accumulates": count_multiply_accumulates(network),
        "parameters": int(network.count_params()),
    }
