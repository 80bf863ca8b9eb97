"""Score a model version on LungHist700: large images cut into tiles, answers averaged, patients drawn.

    data.csv                                superclass, subclass, resolution, image_id, patient_id
    images/aca_bd/aca_bd_20x_1.jpg          1600 x 1200 pixels; also below data/

Its seven classes become three: `nor`, and `aca` and `scc` at each of their grades. LungHist700: Diosdado and
others, Scientific Data 2024, doi 10.1038/s41597-024-03944-3.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import Answers, figures_of
from training.errors import TrainingError
from training.listing import CLASS_NAMES
from training.own_folder import load_version, model_facts
from training.reading import read_files
from training.study import Body, Verdicts, measure_verdicts
from worker.engine.calibration import calibrate
from worker.engine.preprocess import preprocess

#: Side in pixels of the tiles that an image is cut into: 4 x 3 of them.
TILE_SIDE: Final = 400
_CLASSES: Final = {"nor": "lung_n", "aca": "lung_aca", "scc": "lung_scc"}
_ROOTS: Final = ("", "data")
_COLUMNS: Final = ("superclass", "subclass", "resolution", "image_id", "patient_id")


@dataclass(frozen=True)
class LargeImage:
    """One labelled image of a patient."""

    path: str
    class_name: str
    resolution: str
    patient: str


def evaluate_lunghist700(
    model: Path,
    data: Path,
    draws: int,
    skip_unreadable: bool,
) -> tuple[Body, Verdicts]:
    """Return the figures of a model version on large images, with intervals over patients.

    Raises:
        TrainingError: if the model or the folder cannot be used.
    """
    manifest, predictor = load_version(model)
    listed = read_images(data)

    def answer(image: NDArray[np.uint8], path: str) -> NDArray[np.float64]:
        tiles = np.stack([preprocess(tile, manifest.input) for tile in cut(image, path)])
        logits, _ = predictor.predict(tiles)
        return np.stack([calibrate(logits, value).mean(axis=0) for value in (1.0, manifest.temperature)])

    rows, answers = read_files(data, listed, answer, skip_unreadable)
    images = tuple(listed[row] for row in rows)
    print(f"{len(images)} images of {len({image.patient for image in images})} patients")
    before, after = np.stack(answers, axis=1)
    verdicts = _verdicts(images, before, after, manifest.indeterminate_below)
    body = measure_verdicts(verdicts, draws)
    return {
        "kind": "lunghist700",
        "summary": {name: item["value"] for name, item in body["figures"].items()},
        "provenance": {**model_facts(model, manifest), **_facts(images)},
        "by_resolution": _by_resolution(images, verdicts.answers),
        **body,
    }, verdicts


def read_images(data: Path) -> tuple[LargeImage, ...]:
    """Return the images that data.csv lists, sorted by path.

    Raises:
        TrainingError: if the list cannot be read, or names an unknown class, or a class is missing.
    """
    root = next((root for root in _ROOTS if (data / root / "data.csv").is_file()), None)
    if root is None:
        raise TrainingError(f"Expected data.csv with the columns {', '.join(_COLUMNS)} in {data}.")
    path = data / root / "data.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:  # as a spreadsheet may write it
            rows = list(csv.DictReader(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"Expected {path} to be a CSV file in UTF-8. Received: {error}") from error
    missing = [column for column in _COLUMNS if not rows or column not in rows[0]]
    if missing:
        raise TrainingError(f"Expected the columns {', '.join(_COLUMNS)} in {path}. Missing: {missing}")
    images = sorted((_image(row, root) for row in rows), key=lambda image: image.path)
    if {image.class_name for image in images} != set(CLASS_NAMES):
        raise TrainingError(f"Expected images of {', '.join(_CLASSES)} in {path}.")
    return tuple(images)


def cut(image: NDArray[np.uint8], name: str) -> list[NDArray[np.uint8]]:
    """Return the whole tiles of an image, row by row; what is left over at its edges is not looked at.

    Raises:
        TrainingError: if the image is smaller than one tile.
    """
    rows, columns = image.shape[0] // TILE_SIDE, image.shape[1] // TILE_SIDE
    if not rows or not columns:
        raise TrainingError(f"Expected at least {TILE_SIDE} pixels a side at {name}. Received: {image.shape}")
    return list(_tiles(image, rows, columns))


def _tiles(image: NDArray[np.uint8], rows: int, columns: int) -> Iterator[NDArray[np.uint8]]:
    for row in range(rows):
        for column in range(columns):
            top, left = row * TILE_SIDE, column * TILE_SIDE
            yield np.ascontiguousarray(image[top : top + TILE_SIDE, left : left + TILE_SIDE])


def _image(row: dict[str, str], root: str) -> LargeImage:
    kind = row["superclass"]
    if kind not in _CLASSES:
        raise TrainingError(f"Expected one of {', '.join(_CLASSES)} as superclass. Received: {kind!r}")
    if not row["patient_id"]:
        raise TrainingError(f"Expected a patient_id for each image. {row['image_id']} has none.")
    folder = f"{kind}_{row['subclass']}" if row["subclass"] else kind
    name = f"images/{folder}/{folder}_{row['resolution']}_{row['image_id']}.jpg"
    path = f"{root}/{name}" if root else name
    return LargeImage(path, _CLASSES[kind], row["resolution"], row["patient_id"])


def _verdicts(
    images: tuple[LargeImage, ...],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    indeterminate_below: float,
) -> Verdicts:
    patients = sorted({image.patient for image in images})
    return Verdicts(
        Answers(
            after,
            labels=np.array([CLASS_NAMES.index(image.class_name) for image in images], np.int64),
            groups=np.array([patients.index(image.patient) for image in images], np.int64),
            folds=np.zeros(len(images), np.int64),
        ),
        uncalibrated=before,
        thresholds=np.full(len(images), indeterminate_below),
        paths=[image.path for image in images],
        clusters=[image.patient for image in images],
    )


def _facts(images: tuple[LargeImage, ...]) -> Body:
    return {
        "images": len(images),
        "patients": len({image.patient for image in images}),
        "classes": {
            name: {
                "tiles": sum(image.class_name == name for image in images),
                "clusters": len({image.patient for image in images if image.class_name == name}),
            }
            for name in CLASS_NAMES
        },
    }


def _by_resolution(images: tuple[LargeImage, ...], answers: Answers) -> dict[str, float]:
    resolutions = np.array([image.resolution for image in images])
    return {
        str(value): round(figures_of(answers.only(np.flatnonzero(resolutions == value)))["accuracy"], 4)
        for value in np.unique(resolutions)
    }
