"""Turn the answers for labelled tiles into every figure of a card, as one JSON-ready body."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.manifest import Gates, InputSpec
from training.bootstrap import DRAWS, Answers, estimate, figures_of, fold_figures, rounded
from training.dataset import Images
from training.figures import Figurer
from training.floors import measure_floors
from training.foreign import energy, flag_rates, flags_of, measure_foreign
from training.inference import Forward, Outputter
from training.listing import CLASS_NAMES
from training.metrics import accuracy
from training.plots import reliability, risk_coverage
from training.robustness import COPIES, ReadTile, choose_rows, measure_changes, measure_symmetry

#: Share of known tiles that a threshold on the energy may flag.
_ENERGY_FLAGGED: Final = 0.01
#: Failing clusters that a body lists; the worst come first.
MOST_FAILURES: Final = 60

Body = dict[str, Any]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Verdicts:
    """Calibrated answers for labelled images, with what calibration changed and what each image is called."""

    answers: Answers
    uncalibrated: NDArray[np.float64]
    #: The confidence under which each answer is `indeterminate`.
    thresholds: NDArray[np.float64]
    paths: Sequence[str]
    clusters: Sequence[str]


@dataclass(frozen=True)
class Study:
    """Labelled tiles with the answers of weights that never saw them; every array is in the tiles' order."""

    verdicts: Verdicts
    logits: NDArray[np.float32]
    #: Of the pooled features to the tiles that those weights were fitted on; None where that is not known.
    feature_distances: NDArray[np.float64] | None
    images: Images
    read_tile: ReadTile
    #: Functions from inputs to logits, each with the rows that its weights never saw.
    parts: Sequence[tuple[Forward, NDArray[np.int64]]]
    gates: Gates
    spec: InputSpec
    #: Answers for images that none of the parts' weights ever saw.
    released: Outputter
    #: Which fold tests each tile where models must be fitted first; None where there are too few groups.
    floor_folds: NDArray[np.int64] | None


def measure(study: Study, foreign: Path | None, draws: int = DRAWS, report: Report = print) -> Body:
    """Return every figure, section by section; where something cannot be measured, its section is None."""
    report("figures and intervals")
    body = measure_verdicts(study.verdicts, draws)
    report("floors")
    body["floors"] = _floors(study)
    return body | _changes(study, foreign, report)


def measure_verdicts(verdicts: Verdicts, draws: int = DRAWS) -> Body:
    """Return the figures that answers and labels alone decide."""
    answers = verdicts.answers
    return {
        "draws": draws,
        "figures": rounded(estimate(answers, draws)),
        "one_per_cluster": rounded(estimate(answers, draws, each_group_once=True)),
        "folds": [_round(figures) for figures in fold_figures(answers)],
        "pooled": _round(figures_of(answers)),
        "confusion": _confusion(answers),
        "calibration": _calibration(verdicts),
        "risk_coverage": risk_coverage(answers.probabilities, answers.labels),
        "failures": failures(verdicts),
    }


def failures(verdicts: Verdicts) -> list[Body]:
    """Return the clusters with a wrong answer, the worst first: what their tiles were taken for."""
    answers = verdicts.answers
    predicted = answers.probabilities.argmax(axis=1)
    wrong = predicted != answers.labels
    records = []
    for group in np.unique(answers.groups[wrong]):
        rows = np.flatnonzero(answers.groups == group)
        worst = rows[np.argmin(answers.probabilities[rows, answers.labels[rows]])]
        records.append(
            {
                "cluster": verdicts.clusters[worst],
                "class": CLASS_NAMES[answers.labels[worst]],
                "taken_for": CLASS_NAMES[predicted[worst]],
                "wrong": int(wrong[rows].sum()),
                "tiles": len(rows),
                "mean_probabilities": answers.probabilities[rows].mean(axis=0).round(3).tolist(),
                "worst_tile": verdicts.paths[worst],
            }
        )
    records.sort(key=lambda record: (-record["wrong"] / record["tiles"], record["cluster"]))
    return records[:MOST_FAILURES]


def _confusion(answers: Answers) -> list[list[int]]:
    table = Figurer(answers.probabilities, answers.labels).confusion(np.ones(len(answers.labels)))
    return [[round(float(value)) for value in row] for row in table]


def _calibration(verdicts: Verdicts) -> Body:
    answers = verdicts.answers
    before = Answers(verdicts.uncalibrated, answers.labels, answers.groups, answers.folds)
    given = answers.probabilities.max(axis=1) >= verdicts.thresholds
    names = ("ece", "brier", "nll")
    confidence, share = reliability(answers.probabilities, answers.labels)
    return {
        "before": {name: round(figures_of(before)[name], 4) for name in names},
        "after": {name: round(figures_of(answers)[name], 4) for name in names},
        "coverage_classified": round(float(given.mean()), 4),
        "accuracy_classified": round(accuracy(answers.probabilities[given], answers.labels[given]), 4),
        "reliability": [[round(x, 4), round(y, 4)] for x, y in zip(confidence, share, strict=True)],
    }


def _floors(study: Study) -> Mapping[str, float] | None:
    if study.floor_folds is None:
        return None
    answers = study.verdicts.answers
    return _round(measure_floors(study.images, answers.labels, answers.groups, study.floor_folds))


def _changes(study: Study, foreign: Path | None, report: Report) -> Body:
    """Return what happens to a few tiles of each cluster under changes, and to images from elsewhere."""
    answers = study.verdicts.answers
    chosen = choose_rows(answers.groups)
    parts = [(forward, np.intersect1d(rows, chosen)) for forward, rows in study.parts]
    parts = [(forward, rows) for forward, rows in parts if len(rows)]
    truth = (answers.labels, answers.groups)
    threshold = float(np.quantile(energy(study.logits), _ENERGY_FLAGGED))
    report("flips and turns, gates")
    return {
        "copies_changed": COPIES,
        "tiles_changed": len(chosen),
        "symmetry": _round(measure_symmetry(parts, study.images.inputs, *truth)),
        "robustness": measure_changes(parts, study.read_tile, study.spec, *truth, report),
        "known_flags": flag_rates(_known_flags(study, int(row), threshold) for row in chosen),
        "energy_below": round(threshold, 3),
        "unfamiliar_above": study.gates.features.distance if study.gates.features else None,
        "foreign": _foreign(study, foreign, threshold),
    }


def _known_flags(study: Study, row: int, energy_below: float) -> str:
    distance = None if study.feature_distances is None else float(study.feature_distances[row])
    faint = energy(study.logits[row : row + 1])[0] < energy_below
    return flags_of(study.read_tile(row), study.gates, distance) + (" low_energy" if faint else "")


def _foreign(study: Study, folder: Path | None, threshold: float) -> Body | None:
    if folder is None or not folder.is_dir():
        return None
    records = measure_foreign(folder, study.gates, study.spec, study.released, threshold)
    return {"images": records, "rates": flag_rates(str(record["flags"]) for record in records)}


def _round(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in values.items()}
