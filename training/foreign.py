"""What the gates say of images from elsewhere, and of tiles like those that they were fitted on."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import HistoQueueError
from shared.manifest import Gates, InputSpec
from training.inference import Outputter
from worker.engine.decode import decode
from worker.engine.familiarity import Familiarity
from worker.engine.preprocess import least_side, preprocess
from worker.engine.quality import assess, measure

_MAX_PIXELS: Final = 4096 * 4096
#: Notes and lists that lie beside the images.
_NO_IMAGES: Final = frozenset({".md", ".txt", ".csv", ".json"})
Record = dict[str, float | str]


def energy(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how much the network recognises at all: the log of the summed exponentials of its logits."""
    values = logits.astype(np.float64)
    top = values.max(axis=1)
    sums: NDArray[np.float64] = top + np.log(np.exp(values - top[:, np.newaxis]).sum(axis=1))
    return sums


def measure_foreign(
    folder: Path, gates: Gates, spec: InputSpec, outputs: Outputter, energy_below: float
) -> list[Record]:
    """Return what each file in a folder is flagged as; one that cannot be decoded has its error's code."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() not in _NO_IMAGES)
    return [_measure_file(path, gates, spec, outputs, energy_below) for path in paths if path.is_file()]


def flag_rates(flags: Iterable[str]) -> Mapping[str, float]:
    """Return the share of images with each word; one image's words are separated by spaces."""
    lines = [line.split() for line in flags]
    counts = Counter(word for words in lines for word in words)
    return {word: round(count / len(lines), 4) for word, count in sorted(counts.items())}


def flags_of(image: NDArray[np.uint8], gates: Gates, feature_distance: float | None) -> str:
    """Return the words of the gates for one decoded image, with `rejected` where it gets no class."""
    assessment = assess(replace(measure(image, gates), feature_distance=feature_distance), gates)
    return " ".join([*(["rejected"] if assessment.rejected else []), *assessment.reasons])


def _measure_file(
    path: Path, gates: Gates, spec: InputSpec, outputs: Outputter, energy_below: float
) -> Record:
    try:
        image = decode(path.read_bytes(), _MAX_PIXELS, least_side(spec))
    except HistoQueueError as error:
        return {"file": path.name, "flags": f"refused:{error.code}"}
    quality = measure(image, gates)
    logits, features = outputs(preprocess(image, spec)[np.newaxis])
    value = float(energy(logits)[0])
    distance = float(Familiarity(gates.features).distances(features)[0]) if gates.features else None
    flags = flags_of(image, gates, distance).split()
    return {
        "file": path.name,
        "flags": " ".join([*flags, *(["low_energy"] if value < energy_below else [])]),
        "background_fraction": round(quality.background_fraction, 3),
        "sharpness": round(quality.sharpness, 0),
        "domain_distance": round(quality.domain_distance, 1),
        "energy": round(value, 2),
        **({} if distance is None else {"feature_distance": round(distance, 1)}),
    }
