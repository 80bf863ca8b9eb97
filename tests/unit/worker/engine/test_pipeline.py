"""From bytes to outcomes with a fake model: no TensorFlow, no network."""

import base64
import io
import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ops.processes import wait_until
from shared.manifest import FeatureStatistics, InputSpec, Manifest
from worker.engine import pipeline
from worker.engine import preprocess as preprocessing
from worker.engine.decode import Decoded, decode, decode_picture
from worker.engine.pipeline import Outcome, Pipeline

Encode = Callable[[NDArray[np.uint8]], bytes]


class FakeModel:
    """Answers with the logits that it was given, row by row, and remembers the batches."""

    def __init__(self, *rows: tuple[float, float, float], features: Sequence[float] = (0.0,)) -> None:
        self.rows = rows
        self.features = features
        self.batches: list[NDArray[np.uint8]] = []

    def predict(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the prepared logits."""
        self.batches.append(batch)
        logits = [self.rows[index % len(self.rows)] for index in range(len(batch))]
        features = [[self.features[index % len(self.features)]] * 4 for index in range(len(batch))]
        return np.array(logits, np.float32), np.array(features, np.float32)


def run(model: FakeModel, manifest: Manifest, *images: bytes) -> list[Outcome]:
    return Pipeline(model, manifest, max_pixels=1_000_000).run(images)


@pytest.fixture
def tile(tissue: NDArray[np.uint8], png: Encode) -> bytes:
    return png(tissue)


@pytest.fixture
def blank(png: Encode) -> bytes:
    return png(np.full((64, 64, 3), 250, np.uint8))


def test_a_tile_is_classified(manifest: Manifest, tile: bytes) -> None:
    """The outcome holds everything that a client reads."""
    (outcome,) = run(FakeModel((0.0, 3.0, 0.0)), manifest, tile)
    assert "result" in outcome
    result = outcome["result"]
    assert (result["class"], result["label"], result["verdict"]) == (
        "lung_aca",
        "Label lung_aca",
        "classified",
    )
    assert result["probabilities"] is not None
    assert result["confidence"] == result["probabilities"]["lung_aca"] == pytest.approx(0.909, abs=1e-3)
    assert sum(result["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    assert result["reasons"] == []
    assert (outcome["width"], outcome["height"]) == (224, 224)
    assert outcome["timings_ms"]["decode"] > 0
    assert outcome["timings_ms"]["inference"] > 0


def test_the_cancer_probability_sums_the_malignant_classes(manifest: Manifest, tile: bytes) -> None:
    """Both carcinomas count, normal tissue does not."""
    (outcome,) = run(FakeModel((1.0, 1.0, 1.0)), manifest, tile)
    assert "result" in outcome
    assert outcome["result"]["cancer_probability"] == pytest.approx(2 / 3, abs=1e-5)


def test_a_doubtful_answer_is_indeterminate_with_its_reason(manifest: Manifest, tile: bytes) -> None:
    """The likeliest class is named, and so is the doubt."""
    (outcome,) = run(FakeModel((0.1, 0.0, 0.0)), manifest, tile)
    assert "result" in outcome
    assert outcome["result"]["verdict"] == "indeterminate"
    assert outcome["result"]["class"] == "lung_n"
    assert outcome["result"]["reasons"] == ["low_confidence"]


def test_background_never_gets_a_class(manifest: Manifest, blank: bytes) -> None:
    """An empty slide is rejected without asking the model."""
    model = FakeModel((9.0, 0.0, 0.0))
    (outcome,) = run(model, manifest, blank)
    assert "result" in outcome
    result = outcome["result"]
    assert result["verdict"] == "rejected"
    assert "background" in result["reasons"]
    nothing = (result["class"], result["label"], result["confidence"])
    assert nothing == (None, None, None)
    assert (result["probabilities"], result["cancer_probability"]) == (None, None)
    assert result["quality"]["background_fraction"] == 1.0
    assert model.batches == []


def test_a_bad_image_fails_alone_in_its_micro_batch(manifest: Manifest, tile: bytes, blank: bytes) -> None:
    """Answers stay with their images although some never reach the model."""
    model = FakeModel((5.0, 0.0, 0.0), (0.0, 0.0, 5.0))
    outcomes = run(model, manifest, b"nonsense", tile, blank, tile[:500], tile)
    assert [outcome["error"]["code"] for outcome in outcomes if "error" in outcome] == [
        "UNSUPPORTED_IMAGE_FORMAT",
        "INVALID_IMAGE",
    ]
    answers = [outcome["result"]["class"] if "result" in outcome else "error" for outcome in outcomes]
    assert answers == ["error", "lung_n", None, "error", "lung_scc"]
    assert len(model.batches[0]) == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_answer_that_is_not_finite_fails_alone(manifest: Manifest, tile: bytes, bad: float) -> None:
    """The neighbour in the micro-batch keeps its result."""
    broken, fine = run(FakeModel((bad, 0.0, 0.0), (0.0, 4.0, 0.0)), manifest, tile, tile)
    assert "error" in broken
    assert broken["error"]["code"] == "MODEL_ERROR"
    assert "result" in fine
    assert fine["result"]["class"] == "lung_aca"


def test_an_image_of_too_many_pixels_is_refused(manifest: Manifest, tile: bytes) -> None:
    """The limit is the pipeline's, and its code reaches the caller."""
    (outcome,) = Pipeline(FakeModel((0.0, 0.0, 0.0)), manifest, max_pixels=100).run([tile])
    assert "error" in outcome
    assert outcome["error"]["code"] == "IMAGE_TOO_LARGE"


def test_a_manifest_may_have_jpegs_reduced_while_they_are_decoded(
    manifest: Manifest, tissue: NDArray[np.uint8]
) -> None:
    """The model gets what is made of the reduced one; the client is told of the image that was sent."""
    file = io.BytesIO()
    Image.fromarray(tissue).resize((900, 900)).save(file, "JPEG")
    spec = InputSpec(width=224, height=224, resample="bicubic", draft=1.5)
    gates = manifest.gates.model_copy(update={"mpp": (0.99, 1.01)})
    model = FakeModel((0.0, 3.0, 0.0))
    chosen = manifest.model_copy(update={"input": spec, "gates": gates})
    # One micrometre a pixel where it is measured.
    (outcome,) = Pipeline(model, chosen, max_pixels=1_000_000).run([file.getvalue()], [224 / 900])
    assert "result" in outcome
    assert (outcome["width"], outcome["height"]) == (900, 900)
    assert outcome["result"]["reasons"] == []
    reduced = decode(file.getvalue(), 1_000_000, 336)
    assert reduced.shape == (450, 450, 3)
    np.testing.assert_array_equal(model.batches[0][0], preprocessing.preprocess(reduced, spec))


def test_a_model_that_takes_what_the_gates_see_costs_no_resize_of_its_own(
    manifest: Manifest, png: Encode, tissue: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its input is what preprocessing would make; of another size or filter it is made for it."""
    enlarged = np.asarray(Image.fromarray(tissue).resize((300, 280)))
    wanted = InputSpec(width=224, height=224, resample="bicubic")
    others = (wanted.model_copy(update={"resample": "box"}), wanted.model_copy(update={"height": 223}))
    expected = [preprocessing.preprocess(enlarged, spec) for spec in (wanted, *others)]
    made: list[InputSpec] = []
    resize = preprocessing.resize
    monkeypatch.setattr(
        preprocessing, "resize", lambda picture, spec: (made.append(spec), resize(picture, spec))[1]
    )
    for spec, pixels in zip((wanted, *others), expected, strict=True):
        model = FakeModel((0.0, 3.0, 0.0))
        run(model, manifest.model_copy(update={"input": spec}), png(enlarged))
        np.testing.assert_array_equal(model.batches[0][0], pixels)
    assert made == [*others]


def test_warnings_do_not_keep_an_image_from_its_class(manifest: Manifest, png: Encode) -> None:
    """Foreign colours and blur are told beside the answer."""
    flat_green = np.full((100, 100, 3), (20, 160, 40), np.uint8)
    (outcome,) = run(FakeModel((0.0, 0.0, 7.0)), manifest, png(flat_green))
    assert "result" in outcome
    assert outcome["result"]["verdict"] == "classified"
    assert outcome["result"]["reasons"] == ["blurred", "out_of_domain"]


@pytest.fixture
def with_features(manifest: Manifest) -> Manifest:
    """Return a manifest whose training tiles had a first feature of 0, give or take 1."""
    features = FeatureStatistics(projection=((1.0, 0.0, 0.0, 0.0),), centres=((0.0,),), distance=3.0)
    return manifest.model_copy(update={"gates": manifest.gates.model_copy(update={"features": features})})


def test_an_unfamiliar_tile_is_told_beside_its_class(with_features: Manifest, tile: bytes) -> None:
    """The network looked at both; only what it made of the second is unlike its training tiles."""
    known, strange = run(FakeModel((0.0, 9.0, 0.0), features=(1.0, 8.0)), with_features, tile, tile)
    assert "result" in known
    assert "result" in strange
    assert known["result"]["reasons"] == []
    assert strange["result"]["reasons"] == ["unfamiliar"]
    assert strange["result"]["verdict"] == "classified"
    distances = [outcome["result"]["quality"]["feature_distance"] for outcome in (known, strange)]
    assert distances == [1.0, 8.0]


def test_who_the_network_did_not_look_at_has_no_feature_distance(
    manifest: Manifest, with_features: Manifest, tile: bytes, blank: bytes
) -> None:
    """An empty slide by this version, any image by one without statistics."""
    (rejected,) = run(FakeModel((0.0, 9.0, 0.0)), with_features, blank)
    (older,) = run(FakeModel((0.0, 9.0, 0.0), features=(99.0,)), manifest, tile)
    for outcome in (rejected, older):
        assert "result" in outcome
        assert outcome["result"]["quality"]["feature_distance"] is None
        assert "unfamiliar" not in outcome["result"]["reasons"]


def test_features_that_are_not_finite_fail_alone(with_features: Manifest, tile: bytes) -> None:
    """Not a number is neither familiar nor unfamiliar."""
    model = FakeModel((0.0, 4.0, 0.0), features=(float("nan"), 0.0))
    broken, fine = run(model, with_features, tile, tile)
    assert "error" in broken
    assert "result" in fine


def test_a_stated_scale_is_compared_with_that_of_training(
    manifest: Manifest, tile: bytes, blank: bytes
) -> None:
    """Each image by its own; an empty slide may be of the wrong scale too."""
    gates = manifest.gates.model_copy(update={"mpp": (0.35, 0.6)})
    ranged = manifest.model_copy(update={"gates": gates})
    pipeline = Pipeline(FakeModel((9.0, 0.0, 0.0)), ranged, max_pixels=1_000_000)
    outcomes = pipeline.run([tile, tile, tile, blank], [0.5, 2.0, None, 4.0])
    flagged = [
        "scale_mismatch" in outcome["result"]["reasons"] for outcome in outcomes if "result" in outcome
    ]
    assert flagged == [False, True, False, True]


def test_a_stated_scale_is_that_of_the_upload_and_not_of_what_is_measured(
    manifest: Manifest, png: Encode, tissue: NDArray[np.uint8]
) -> None:
    """Half a micrometre a pixel suits a side of 224 pixels, and not one of 448 that covers twice as much."""
    ranged = manifest.model_copy(update={"gates": manifest.gates.model_copy(update={"mpp": (0.35, 0.6)})})
    pipeline = Pipeline(FakeModel((9.0, 0.0, 0.0)), ranged, max_pixels=1_000_000)
    (outcome,) = pipeline.run([png(np.asarray(Image.fromarray(tissue).resize((448, 224))))], [0.5])
    assert "result" in outcome
    assert "scale_mismatch" in outcome["result"]["reasons"]
    assert (outcome["width"], outcome["height"]) == (448, 224)


def test_outcomes_are_plain_json(manifest: Manifest, tile: bytes, blank: bytes) -> None:
    """They cross a process border: no NumPy number, no NaN."""
    outcomes = run(FakeModel((0.0, 2.0, 0.0)), manifest, tile, blank, b"")
    assert json.loads(json.dumps(outcomes, allow_nan=False)) == outcomes


def test_no_images_give_no_outcomes(manifest: Manifest) -> None:
    """An empty micro-batch does not reach the model."""
    model = FakeModel((0.0, 0.0, 0.0))
    assert run(model, manifest) == []
    assert model.batches == []


def test_what_the_predictor_raises_is_passed_on(manifest: Manifest, tile: bytes) -> None:
    """Trouble of the engine is not booked on an image."""

    class Broken(FakeModel):
        def predict(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            """Fail as a whole."""
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(Broken(), manifest, tile)


def test_only_what_was_asked_for_is_explained(manifest: Manifest, tile: bytes, blank: bytes) -> None:
    """A heat map of the upload's shape beside the same answer; an image without a class has none."""
    pipeline = Pipeline(FakeModel((0.0, 3.0, 0.0)), manifest, max_pixels=1_000_000)
    plain, explained, rejected = pipeline.run([tile, tile, blank], (), [False, True, True])
    assert "result" in plain
    assert "result" in explained
    assert plain["result"] == explained["result"]
    assert "heatmap" not in plain
    assert "heatmap" not in rejected
    picture = Image.open(io.BytesIO(base64.b64decode(explained["heatmap"])))
    assert picture.size == (224, 224)
    assert explained["timings_ms"]["explain"] > 0


class RestlessModel(FakeModel):
    """Changes its features, and never its answer."""

    def predict(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return other features for every other image."""
        logits, features = super().predict(batch)
        features[1::2, 1] = 9.0
        return logits, features


def test_a_heat_map_shows_what_speaks_for_the_class(manifest: Manifest, tile: bytes) -> None:
    """Where no part changes the answer, nothing is drawn, whatever becomes of the features."""
    drawn = []
    for model in (RestlessModel((0.0, 3.0, 0.0)), FakeModel((0.0, 2.0, 0.0), (0.0, 3.0, 0.0))):
        (explained,) = Pipeline(model, manifest, max_pixels=1_000_000).run([tile], (), [True])
        assert "result" in explained
        picture = Image.open(io.BytesIO(base64.b64decode(explained["heatmap"])))
        drawn.append(picture.getchannel("A").getextrema() != (0, 0))
    assert drawn == [False, True]


class BusyModel(FakeModel):
    """Computes for as long as it takes until `is_done`, as a device does beside the cores."""

    def __init__(self, is_done: Callable[[], bool]) -> None:
        super().__init__((0.0, 3.0, 0.0))
        self._is_done = is_done

    def predict(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Wait, then answer."""
        assert wait_until(self._is_done, 10)
        return super().predict(batch)


def test_images_are_decoded_while_the_model_computes_others(
    manifest: Manifest, tile: bytes, blank: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, while it has the first part; every outcome stays with its image."""
    decoded: list[bytes] = []

    def decode_and_note(data: bytes, max_pixels: int, least_side: int | None) -> Decoded:
        found = decode_picture(data, max_pixels, least_side)
        decoded.append(data)
        return found

    monkeypatch.setattr(pipeline, "decode_picture", decode_and_note)
    images = [tile, blank, b"nonsense", tile] * 4
    model = BusyModel(lambda: len(decoded) == 12)
    outcomes = Pipeline(model, manifest, max_pixels=1_000_000, decode_threads=2).run(images)
    kinds = [one["result"]["verdict"] if "result" in one else "error" for one in outcomes]
    assert kinds == ["classified", "rejected", "error", "classified"] * 4
    assert [len(batch) for batch in model.batches] == [4, 4]


def test_several_threads_decode_to_the_same_answers(manifest: Manifest, tile: bytes, blank: bytes) -> None:
    """Whatever the size of the micro-batch; timings apart."""
    for count in (1, 3, 9, 33):
        images = [tile, blank, b"nonsense"] * count
        found = [
            Pipeline(FakeModel((0.0, 3.0, 0.0)), manifest, 1_000_000, threads).run(images)
            for threads in (1, 3)
        ]
        for outcomes in found:
            for outcome in outcomes:
                outcome.pop("timings_ms", None)  # type: ignore[misc]
        assert found[0] == found[1]
