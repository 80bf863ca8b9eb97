"""Score a calibrated cross-validation out of fold, and describe the release that its figures speak for."""

from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.bootstrap import Answers
from training.calibrate import read_calibration
from training.cross_calibrate import OutOfFold, gather
from training.cross_validation import CrossValidation, read_folds, release_folder
from training.dataset import decode_file, labels_of
from training.dataset_facts import dataset_facts
from training.familiarity import read_familiarity
from training.inference import Outputter, build_forward, build_outputs
from training.leaky import measure_leaky
from training.listing import CLASS_NAMES
from training.network_facts import network_facts, software_facts
from training.splits import leakage_groups
from training.study import Body, Study, Verdicts, measure
from training.train import NETWORK_NAME, read_history, read_software
from worker.engine.familiarity import Familiarity


def evaluate_folds(
    run: CrossValidation,
    data: Path,
    foreign: Path | None,
    draws: int,
) -> tuple[Body, Verdicts]:
    """Return every figure of a finished and calibrated cross-validation, and the answers behind them.

    Raises:
        TrainingError: if a fold is not finished, or the run is not calibrated.
    """
    read_calibration(run.folder)
    held_out = gather(read_folds(run), labels_of(run.tiles))
    study = _build_study(run, data, held_out)
    body = measure(study, foreign, draws)
    body["calibration"]["fold_temperatures"] = list(held_out.temperatures)
    body["calibration"]["fold_thresholds"] = list(held_out.indeterminate_below)
    body["leaky"] = measure_leaky(run, draws)
    head = {"kind": "cross-validation", "summary": _summarise(body), "provenance": _provenance(run)}
    return {**head, **body}, study.verdicts


def _build_study(run: CrossValidation, data: Path, held_out: OutOfFold) -> Study:
    order = np.argsort(held_out.rows)
    groups = leakage_groups(run.tiles)
    networks = [_load(run.folder / f"fold-{number + 1}") for number in range(len(run.splits))]
    return Study(
        verdicts=Verdicts(
            Answers(held_out.probabilities[order], held_out.labels[order], groups, held_out.folds[order]),
            uncalibrated=held_out.uncalibrated[order],
            thresholds=held_out.thresholds[order],
            paths=[tile.path for tile in run.tiles],
            clusters=[tile.cluster for tile in run.tiles],
        ),
        logits=held_out.logits[order],
        feature_distances=_feature_distances(run, held_out)[order],
        images=run.images,
        read_tile=partial(_read_tile, run, data),
        parts=[
            (build_forward(network), split.test) for network, split in zip(networks, run.splits, strict=True)
        ],
        gates=read_calibration(run.folder).gates,
        spec=run.experiment.input,
        released=_released(run),
        floor_folds=held_out.folds[order],
    )


def _feature_distances(run: CrossValidation, held_out: OutOfFold) -> NDArray[np.float64]:
    """Return each row's distance to the tiles that its own fold trained on."""
    distances = np.empty(len(held_out.rows))
    for number in range(len(run.splits)):
        tested = held_out.folds == number
        familiarity = Familiarity(read_familiarity(run.open_fold(number)))
        distances[tested] = familiarity.distances(held_out.features[tested])
    return distances


def _released(run: CrossValidation) -> Outputter:
    return build_outputs(_load(release_folder(run) or run.folder / "fold-1"))


def _load(folder: Path) -> Any:
    return keras.models.load_model(folder / NETWORK_NAME, compile=False)


def _read_tile(run: CrossValidation, data: Path, row: int) -> Any:
    return decode_file(data, run.tiles[row].path, run.experiment.input)


def _summarise(body: Body) -> dict[str, float | int]:
    """Return the few figures that travel in a model version's manifest."""
    names = (
        "accuracy",
        "lowest_recall",
        *(f"recall_{name}" for name in CLASS_NAMES),
        "macro_auroc",
        "auroc_aca_against_scc",
        "sensitivity_at_99_specificity",
        "ece",
    )
    figures = body["figures"]
    return {
        **{f"cv_{name}": figures[name]["value"] for name in names},
        "cv_accuracy_low_95": figures["accuracy"]["low"],
        "cv_accuracy_high_95": figures["accuracy"]["high"],
        "cv_worst_fold_accuracy": min(fold["accuracy"] for fold in body["folds"]),
        "cv_folds": len(body["folds"]),
        "cv_coverage_classified": body["calibration"]["coverage_classified"],
        "cv_accuracy_classified": body["calibration"]["accuracy_classified"],
    }


def _provenance(run: CrossValidation) -> Body:
    """Return what the figures were made from, in enough detail to make them again."""
    plan = run.experiment
    calibration = read_calibration(run.folder)
    released = release_folder(run)
    histories = [read_history(run.folder / f"fold-{number + 1}") for number in range(len(run.splits))]
    return {
        **dataset_facts(run.tiles),
        "folds": [
            {
                "digest": digest,
                "test_tiles": len(split.test),
                "test_clusters": len({run.tiles[row].cluster for row in split.test}),
            }
            for digest, split in zip(run.digests, run.splits, strict=True)
        ],
        "split_seed": plan.split.seed,
        "seed": plan.train.seed,
        "epochs": plan.train.epochs,
        "fold_seconds": [round(sum(epoch["seconds"] for epoch in history)) for history in histories],
        "release_seconds": round(sum(epoch["seconds"] for epoch in read_history(released)))
        if released
        else None,
        "temperature": calibration.temperature,
        "indeterminate_below": calibration.indeterminate_below,
        "gates": calibration.gates.model_dump(exclude={"colour", "features"}),
        "experiment": plan.model_dump(mode="json"),
        "network": network_facts((released or run.folder / "fold-1") / NETWORK_NAME),
        "trained_with": read_software(released or run.folder / "fold-1"),
        "software": software_facts(),
    }
