"""The story of a micro-batch in order: decode, gates, preprocess, predict, calibrate, one outcome each."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from time import perf_counter
from typing import Literal, NotRequired, Protocol, TypedDict, final

import numpy as np
from numpy.typing import NDArray

from shared.crash_points import crash_point
from shared.errors import HistoQueueError, ModelError
from shared.manifest import Manifest
from worker.engine.calibration import calibrate, judge
from worker.engine.decode import decode_picture
from worker.engine.familiarity import Familiarity
from worker.engine.heatmap import draw, occlusion
from worker.engine.preprocess import least_side, preprocess_measured
from worker.engine.quality import Assessment, Quality, assess, measure_view, resize_for_measuring

#: Where decoding goes on beside the model, a micro-batch goes to it in about so many parts, since the first
#: one must be decoded before anything can be computed; but in none smaller than the second number: at the
#: end of each part threads wait for one another.
_PARTS = 4
_SMALLEST_PART = 8
#: Decimals that a client is shown: enough to compare two answers, no pretence beyond float32.
_DECIMALS = 6


class Model(Protocol):
    """Whatever answers like `worker.engine.predictor.Predictor`."""

    def predict(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits (n, classes) and pooled features (n, features) of a batch (n, height, width, 3)."""
        ...


class QualityFigures(TypedDict):
    """The gates' measurements, as clients see them."""

    background_fraction: float
    sharpness: float
    domain_distance: float
    feature_distance: float | None


class _ResultBody(TypedDict):
    label: str | None
    confidence: float | None
    probabilities: dict[str, float] | None
    cancer_probability: float | None
    verdict: Literal["classified", "indeterminate", "rejected"]
    reasons: list[str]
    quality: QualityFigures


#: `class` is no Python name, hence the second spelling.
_ResultClass = TypedDict("_ResultClass", {"class": str | None})


class Result(_ResultBody, _ResultClass):
    """The answer for one image; a rejected one has no class, label, confidence or probability."""


class Timings(TypedDict):
    """Milliseconds: decoding and gates of this image; the forward pass it was in; its heat map."""

    decode: float
    inference: float
    explain: NotRequired[float]


@final
class Success(TypedDict):
    """An image that was answered; `width` and `height` are those of the upright upload, in pixels."""

    result: Result
    timings_ms: Timings
    width: int
    height: int
    #: A PNG in base64, where one was asked for and the image has a class.
    heatmap: NotRequired[str]


class Problem(TypedDict):
    """A code of `shared.errors` with its text."""

    code: str
    detail: str


@final
class Failure(TypedDict):
    """An image that could not be answered; the others of its micro-batch are."""

    error: Problem


Outcome = Success | Failure


@dataclass(frozen=True)
class _Answer:
    """What the model says of one image."""

    probabilities: NDArray[np.float64]
    #: None where the version has no statistics of its features.
    feature_distance: float | None


@dataclass(frozen=True)
class _Prepared:
    """All that is kept of an image once it is decoded: a large upload's pixels are gone by then."""

    tensor: NDArray[np.uint8]
    is_explained: bool
    quality: Quality
    assessment: Assessment
    width: int
    height: int
    decode_ms: float


class Pipeline:
    """From uploads to outcomes with one model version."""

    def __init__(
        self, predictor: Model, manifest: Manifest, max_pixels: int, decode_threads: int = 1
    ) -> None:
        """With several `decode_threads`, the next images are decoded while the model computes."""
        self._decoders = ThreadPoolExecutor(decode_threads, "decode") if decode_threads > 1 else None
        self._predictor = predictor
        self._manifest = manifest
        self._max_pixels = max_pixels
        self._least_side = least_side(manifest.input)
        statistics = manifest.gates.features
        self._familiarity = Familiarity(statistics) if statistics else None

    def run(
        self, images: Sequence[bytes], mpps: Sequence[float | None] = (), explained: Sequence[bool] = ()
    ) -> list[Outcome]:
        """Return one JSON-ready outcome per image, in order.

        `mpps` are the images' micrometres per pixel, where they are known; none at all stands for none known.
        `explained` says which of them are to have a heat map; none at all stands for no image.
        A bad image fails alone. Whatever the predictor raises is passed on: it concerns the whole engine.
        """
        stated, wished = mpps or [None] * len(images), explained or [False] * len(images)
        each = (images, stated, wished)
        if self._decoders is None or len(images) == 1:
            prepared: Iterable[_Prepared | HistoQueueError] = map(self._prepare, *each)
            part = len(images)
        else:
            prepared = self._decoders.map(self._prepare, *each)
            part = _size_of_part(len(images))
        outcomes: list[Outcome] = []
        waiting = iter(prepared)
        while items := list(islice(waiting, part)):
            crash_point("engine.mid_batch")
            outcomes += self._outcomes(items)
        return outcomes

    def _outcomes(self, items: Sequence[_Prepared | HistoQueueError]) -> list[Outcome]:
        judged = [item for item in items if isinstance(item, _Prepared) and not item.assessment.rejected]
        started = perf_counter()
        answers = iter(self._answers(judged))
        inference_ms = _milliseconds_since(started)
        return [self._outcome(item, answers, inference_ms) for item in items]

    def _prepare(self, data: bytes, mpp: float | None, is_explained: bool) -> _Prepared | HistoQueueError:
        started = perf_counter()
        try:
            picture, width, height = decode_picture(data, self._max_pixels, self._least_side)
        except HistoQueueError as error:
            return error
        view = resize_for_measuring(picture)
        quality = measure_view(view, self._manifest.gates, mpp, (width, height))
        return _Prepared(
            tensor=preprocess_measured(picture, view, self._manifest.input),
            is_explained=is_explained,
            quality=quality,
            assessment=assess(quality, self._manifest.gates),
            width=width,
            height=height,
            decode_ms=_milliseconds_since(started),
        )

    def _answers(self, items: Sequence[_Prepared]) -> list[_Answer]:
        if not items:
            return []
        logits, features = self._predictor.predict(np.stack([item.tensor for item in items]))
        distances = (
            self._familiarity.distances(features).tolist() if self._familiarity else [None] * len(items)
        )
        rows = calibrate(logits, self._manifest.temperature)
        return [_Answer(row, distance) for row, distance in zip(rows, distances, strict=True)]

    def _outcome(
        self, item: _Prepared | HistoQueueError, answers: Iterator[_Answer], inference_ms: float
    ) -> Outcome:
        if isinstance(item, HistoQueueError):
            return _failure(item)
        if item.assessment.rejected:
            return _success(item, _rejection(item), 0.0)
        answer = next(answers)
        if not np.isfinite([*answer.probabilities, answer.feature_distance or 0.0]).all():
            return _failure(
                ModelError("Expected finite numbers of the model. It gave others for this image.")
            )
        outcome = _success(item, self._classification(item, answer), inference_ms)
        if item.is_explained:
            self._explain(item, int(answer.probabilities.argmax()), outcome)
        return outcome

    def _explain(self, item: _Prepared, class_index: int, outcome: Success) -> None:
        started = perf_counter()
        heat = occlusion(lambda batch: self._predictor.predict(batch)[0], item.tensor, class_index)
        outcome["heatmap"] = base64.b64encode(draw(heat, item.width, item.height)).decode("ascii")
        outcome["timings_ms"]["explain"] = _milliseconds_since(started)

    def _classification(self, item: _Prepared, answer: _Answer) -> Result:
        judgement = judge(answer.probabilities, self._manifest.indeterminate_below)
        classes = self._manifest.classes
        pairs = list(zip(classes, answer.probabilities.tolist(), strict=True))
        quality = replace(item.quality, feature_distance=answer.feature_distance)
        doubts = ["low_confidence"] if judgement.verdict == "indeterminate" else []
        return {
            "class": classes[judgement.index].name,
            "label": classes[judgement.index].label,
            "confidence": round(judgement.confidence, _DECIMALS),
            "probabilities": {info.name: round(value, _DECIMALS) for info, value in pairs},
            "cancer_probability": round(sum(value for info, value in pairs if info.malignant), _DECIMALS),
            "verdict": judgement.verdict,
            "reasons": [*doubts, *assess(quality, self._manifest.gates).reasons],
            "quality": _figures(quality),
        }


def _size_of_part(images: int) -> int:
    """Return how many images go to the model together: a power of two, for which it has a trace.

    >>> [_size_of_part(images) for images in (8, 16, 40, 64)]
    [8, 8, 8, 16]
    """
    return 1 << (max(_SMALLEST_PART, images // _PARTS).bit_length() - 1)


def _rejection(item: _Prepared) -> Result:
    return {
        "class": None,
        "label": None,
        "confidence": None,
        "probabilities": None,
        "cancer_probability": None,
        "verdict": "rejected",
        "reasons": list(item.assessment.reasons),
        "quality": _figures(item.quality),
    }


def _success(item: _Prepared, result: Result, inference_ms: float) -> Success:
    timings: Timings = {"decode": item.decode_ms, "inference": inference_ms}
    return {"result": result, "timings_ms": timings, "width": item.width, "height": item.height}


def _failure(error: HistoQueueError) -> Failure:
    return {"error": {"code": error.code, "detail": error.detail}}


def _figures(quality: Quality) -> QualityFigures:
    return {
        "background_fraction": round(quality.background_fraction, 4),
        "sharpness": round(quality.sharpness, 1),
        "domain_distance": round(quality.domain_distance, 2),
        "feature_distance": None if quality.feature_distance is None else round(quality.feature_distance, 2),
    }


def _milliseconds_since(started: float) -> float:
    return round((perf_counter() - started) * 1000, 3)
