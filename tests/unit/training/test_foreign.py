"""What the gates say of images from elsewhere, one word per gate."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.manifest import ColourStatistics, FeatureStatistics, Gates, InputSpec

pytestmark = pytest.mark.tensorflow

foreign = pytest.importorskip("training.foreign")

SPEC = InputSpec(width=8, height=8, resample="box")
IDENTITY = tuple(tuple(float(row == column) for column in range(6)) for row in range(6))
TISSUE = (190.0, 120.0, 180.0, 23.0, 23.0, 23.0)
GATES = Gates(
    background_level=220,
    background_reject=0.5,
    background_warn=0.25,
    sharpness_low=60.0,
    sharpness_high=100_000.0,
    domain_distance=30.0,
    colour=(ColourStatistics(class_name="lung_n", mean=TISSUE, inverse_covariance=IDENTITY),),
    features=FeatureStatistics(projection=((1.0,),), centres=((0.0,),), distance=150.0),
)


def outputs(inputs: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Be sure of dark images and not of others; the one feature is how green an image is."""
    dark = (inputs.mean(axis=(1, 2, 3)) < 200).astype(np.float32)
    logits = np.stack([9 * dark, 0 * dark, 0 * dark], axis=1)
    return logits, inputs[..., 1].mean(axis=(1, 2))[:, np.newaxis].astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return tissue, something green, an empty slide, a file that is no image, notes, and a folder."""
    noise = np.random.default_rng(5).integers(-40, 41, (224, 224, 3))
    for name, colour in (("tissue", (190, 120, 180)), ("green", (60, 170, 60)), ("empty", (250, 250, 250))):
        pixels = np.array(colour) + noise * (name != "empty")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.svs").write_bytes(b"no image")
    (tmp_path / "README.md").write_text("notes", encoding="utf-8")
    (tmp_path / "more.png").mkdir()
    return tmp_path


def measure(folder: Path, gates: Gates = GATES, spec: InputSpec = SPEC) -> dict[str, dict]:
    """Return each file's record by its name."""
    records = foreign.measure_foreign(folder, gates, spec, outputs, energy_below=5.0)
    return {record["file"]: record for record in records}


def test_images_are_measured_and_notes_are_not(folder: Path) -> None:
    """In the order of their names; a folder inside is not looked into."""
    assert list(measure(folder)) == ["broken.svs", "empty.png", "green.png", "tissue.png"]


def test_each_gate_has_its_own_word(folder: Path) -> None:
    """Different gates catch different images: no word stands for another."""
    flags = {name: set(record["flags"].split()) for name, record in measure(folder).items()}
    assert flags["tissue.png"] == set()
    assert flags["green.png"] == {"out_of_domain", "unfamiliar"}
    assert flags["empty.png"] == {
        "rejected", "background", "blurred", "out_of_domain", "unfamiliar", "low_energy",
    }  # fmt: skip
    assert flags["broken.svs"] == {"refused:UNSUPPORTED_IMAGE_FORMAT"}


def test_measurements_stand_beside_the_words(folder: Path) -> None:
    """The feature is the mean of green, and the energy that of the logits."""
    record = measure(folder)["green.png"]
    assert record["feature_distance"] == pytest.approx(170, abs=1)
    assert record["energy"] == pytest.approx(np.log(np.exp(9) + 2), abs=0.01)


def test_without_statistics_nothing_is_unfamiliar(folder: Path) -> None:
    """A version from before that gate is measured as it is served."""
    records = measure(folder, GATES.model_copy(update={"features": None}))
    assert "feature_distance" not in records["green.png"]
    assert not [record for record in records.values() if "unfamiliar" in record["flags"]]


def test_a_large_jpeg_is_reduced_as_it_is_served(folder: Path) -> None:
    """The gates see fewer of its finest details then."""
    noise = np.random.default_rng(5).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "large.jpeg", "JPEG")
    whole, reduced = (
        measure(folder, spec=SPEC.model_copy(update={"draft": draft}))["large.jpeg"]["sharpness"]
        for draft in (None, 1.5)
    )
    assert reduced != whole


def test_the_energy_is_the_log_of_the_summed_exponentials() -> None:
    """Known by hand, and finite for logits whose exponential is not."""
    logits = np.array([[0.0, 0.0, 0.0], [1000.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(foreign.energy(logits), [np.log(3), 1000.0])


def test_rates_are_shares_of_images_with_a_word() -> None:
    """Two of four are blurred; an image without any word counts among the four."""
    rates = foreign.flag_rates(["blurred", "", "blurred background", ""])
    assert rates == {"background": 0.25, "blurred": 0.5}
    assert foreign.flag_rates(["", ""]) == {}
