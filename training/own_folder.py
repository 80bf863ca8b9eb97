"""Score a published model version on somebody's own labelled folder, as it would be served."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import HistoQueueError
from shared.manifest import MANIFEST_NAME, InputSpec, Manifest, parse_manifest
from training.bootstrap import DRAWS, Answers
from training.dataset import (
    Tile,
    build_tiles,
    decode_file,
    digest_files,
    labels_of,
    load_images,
)
from training.dataset_facts import dataset_facts
from training.errors import TrainingError
from training.inference import Forward
from training.listing import CLASS_NAMES, check_classes, read_list
from training.network_facts import network_facts, software_facts
from training.prepare import prepare_folder
from training.reading import read_files
from training.reference import load_reference
from training.splits import folds_of_groups, leakage_groups
from training.study import Body, Study, Verdicts, measure
from worker.engine.calibration import calibrate
from worker.engine.familiarity import Familiarity
from worker.engine.pipeline import Model

_FLOOR_FOLDS: Final = 5
Report = Callable[[str], None]


def evaluate_folder(
    model: Path,
    data: Path,
    cache: Path,
    foreign: Path | None,
    groups: tuple[Path, str] | None = None,
    draws: int = DRAWS,
    report: Report = print,
    skip_unreadable: bool = False,
) -> tuple[Body, Verdicts]:
    """Return every figure of a model version on a labelled folder, and the answers behind them.

    `groups` is a list with the columns path, class and the named one, whose images are drawn together: the
    patient, where that is known. Without it the folder's clusters are used, found by `prepare` where needed.

    Raises:
        TrainingError: if the model or the folder cannot be used.
    """
    manifest, predictor = load_version(model)
    tiles = _tiles(data, cache, manifest, groups, skip_unreadable, report)
    study = _build_study(manifest, predictor, data, tiles, cache, report)
    facts = dataset_facts(tiles)
    fitted_on_these = facts["dataset_sha256"] == manifest.training.get("dataset_sha256")
    if fitted_on_these:
        report(f"warning: {model} was trained on these very tiles: its figures say nothing of others")
    body = measure(study, foreign, draws, report)
    return {
        "kind": "own folder",
        "summary": {name: item["value"] for name, item in body["figures"].items()},
        "provenance": {
            **model_facts(model, manifest),
            **facts,
            "fitted_on_these": fitted_on_these,
            **({"cluster_is": f"images of one {groups[1]}"} if groups else {}),
        },
        **body,
    }, study.verdicts


def load_version(model: Path) -> tuple[Manifest, Model]:
    """Return a model version as the worker loads it.

    Raises:
        TrainingError: if the folder holds none, or one of other classes.
    """
    try:
        manifest = parse_manifest((model / MANIFEST_NAME).read_bytes())
        predictor = load_reference(model / manifest.weights, manifest)
    except (OSError, HistoQueueError) as error:
        raise TrainingError(f"Expected a model version in {model}. Received: {error}") from error
    names = tuple(info.name for info in manifest.classes)
    if names != CLASS_NAMES:
        raise TrainingError(f"Expected a model of {', '.join(CLASS_NAMES)}. Received: {', '.join(names)}")
    return manifest, predictor


def model_facts(model: Path, manifest: Manifest) -> Body:
    """Return what a card says about a published version."""
    return {
        "model": f"{manifest.name} {manifest.version}",
        "weights_sha256": manifest.digest_of(manifest.weights).sha256,
        "temperature": manifest.temperature,
        "indeterminate_below": manifest.indeterminate_below,
        "network": network_facts(model / manifest.weights),
        "software": software_facts(),
    }


def _tiles(
    data: Path,
    cache: Path,
    manifest: Manifest,
    groups: tuple[Path, str] | None,
    skip_unreadable: bool,
    report: Report,
) -> tuple[Tile, ...]:
    if groups is None:
        return prepare_folder(data, cache, manifest.input, skip_unreadable, report, to_train=False)
    path, column = groups
    files = sorted(read_list(path, column), key=lambda file: file.path)
    check_classes(path, files)  # and no more: one patient can have tissue of several classes
    digests = digest_files(data, files)
    rows, _ = read_files(data, files, lambda *_: None, skip_unreadable, report)
    return build_tiles([files[row] for row in rows], [digests[row] for row in rows])


def _build_study(
    manifest: Manifest, predictor: Model, data: Path, tiles: tuple[Tile, ...], cache: Path, report: Report
) -> Study:
    images = load_images(data, tiles, manifest.input, cache, report)
    labels, groups = labels_of(tiles), leakage_groups(tiles)
    logits, features = predictor.predict(images.inputs)
    statistics = manifest.gates.features
    nobody = np.zeros(len(tiles), np.int64)  # one set of weights answered everything

    def forward(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        return predictor.predict(inputs)[0]

    answers = Answers(calibrate(logits, manifest.temperature), labels, groups, nobody)
    parts: list[tuple[Forward, NDArray[np.int64]]] = [(forward, np.arange(len(tiles)))]
    return Study(
        verdicts=Verdicts(
            answers,
            uncalibrated=calibrate(logits, 1.0),
            thresholds=np.full(len(tiles), manifest.indeterminate_below),
            paths=[tile.path for tile in tiles],
            clusters=[tile.cluster for tile in tiles],
        ),
        logits=logits,
        feature_distances=Familiarity(statistics).distances(features) if statistics else None,
        images=images,
        read_tile=partial(_read_tile, data, tiles, manifest.input),
        parts=parts,
        gates=manifest.gates,
        spec=manifest.input,
        released=predictor.predict,
        floor_folds=folds_of_groups(labels, groups, _FLOOR_FOLDS),
    )


def _read_tile(data: Path, tiles: tuple[Tile, ...], spec: InputSpec, row: int) -> Any:
    return decode_file(data, tiles[row].path, spec)
