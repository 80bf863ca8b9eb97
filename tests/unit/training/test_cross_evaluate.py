"""One command turns a calibrated cross-validation into figures, plots and a whole card."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.manifest import MANIFEST_NAME, parse_manifest
from shared.model_registry import ModelRegistry
from shared.object_store_memory import MemoryObjectStore
from tests.unit.training import tiny
from training.card import render_card
from training.listing import CLASS_NAMES
from training.synthetic import draw_tile
from training.terms import LC25000_LUNG

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 itself calls NumPy 2 in the old way when it reads and saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def finished(data: Path, trained_folds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an evaluated cross-validation of three folds."""
    folder = shutil.copytree(trained_folds, tmp_path_factory.mktemp("evaluated"), dirs_exist_ok=True)
    foreign = folder / "foreign"
    foreign.mkdir()
    Image.new("RGB", (64, 64), "white").save(foreign / "empty.png")
    Image.fromarray(draw_tile(5, 64)).save(foreign / "drawn.png")
    (foreign / "broken.png").write_bytes(b"no image")
    (foreign / "README.md").write_text("no image at all", encoding="utf-8")
    assert tiny.command("evaluate", data, folder / "cv", "--foreign", str(foreign), "--draws", "50") == 0
    return folder


@pytest.fixture(scope="module")
def body(finished: Path) -> dict[str, object]:
    text = (finished / "cv/metrics.json").read_text(encoding="utf-8")
    result: dict[str, object] = json.loads(text)
    return result


def test_every_demanded_figure_has_an_interval(body: dict) -> None:
    """The value lies between its ends, and nothing is missing."""
    demanded = {
        "accuracy", "lowest_recall", "macro_auroc", "auroc_aca_against_scc", "ece", "brier", "nll",
        "sensitivity_at_95_specificity", "sensitivity_at_99_specificity", "coverage_at_99_accuracy",
        *(f"{kind}_{name}" for kind in ("precision", "recall", "f1") for name in CLASS_NAMES),
    }  # fmt: skip
    assert demanded <= set(body["figures"])
    accuracy = body["figures"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert len(body["folds"]) == 3


def test_the_accuracy_is_the_mean_of_the_folds(body: dict) -> None:
    """And the summary that travels in a manifest says the same."""
    mean = sum(fold["accuracy"] for fold in body["folds"]) / 3
    assert body["figures"]["accuracy"]["value"] == pytest.approx(mean, abs=2e-4)
    assert body["summary"]["cv_accuracy"] == body["figures"]["accuracy"]["value"]


def test_every_section_is_measured(body: dict) -> None:
    """Floors, changes, flags, failures and where it all came from."""
    assert len(body["robustness"]) > 25
    assert 0 <= body["symmetry"]["views_that_agree"] <= 1
    assert set(body["calibration"]) >= {"before", "after", "reliability", "fold_temperatures"}
    assert body["floors"]["colour_mean_sd"] > 0.3
    assert body["provenance"]["tiles"] == 54
    assert len(body["provenance"]["folds"][0]["digest"]) == 64
    assert sum(map(sum, body["confusion"])) == 54


def test_images_from_elsewhere_are_flagged_gate_by_gate(body: dict) -> None:
    """An empty slide is rejected, a broken file has its error's name, a note is no image."""
    flags = {record["file"]: record["flags"] for record in body["foreign"]["images"]}
    assert set(flags) == {"empty.png", "drawn.png", "broken.png"}
    assert "rejected background" in flags["empty.png"]
    assert flags["broken.png"].startswith("refused:")


def test_the_feature_space_is_measured_on_known_and_foreign_images(body: dict) -> None:
    """Known tiles by the fold that never saw them, others by the release, both against one threshold."""
    above = body["unfamiliar_above"]
    assert above > 0
    records = [record for record in body["foreign"]["images"] if "feature_distance" in record]
    assert {record["file"] for record in records} == {"empty.png", "drawn.png"}
    for record in records:
        assert ("unfamiliar" in record["flags"].split()) == (record["feature_distance"] > above)
    # 1 in 100 of 54 tiles is one.
    assert 0 < body["known_flags"]["unfamiliar"] <= 2 / 54


def test_the_card_has_every_section(finished: Path) -> None:
    """What the page promises, in the order of reading."""
    card = (finished / "cv/card.md").read_text(encoding="utf-8")
    for heading in (
        "Figures", "Data", "By class", "Folds", "Calibration", "Without looking at tissue", "Under changes",
        "Gates", "Failures", "Network", "Limits", "Not yet measured", "Sources",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in card
    for needed in ("not for diagnostic use", "small-cell"):
        assert needed in card


def test_a_card_claims_of_its_tiles_what_is_known_of_them(finished: Path, body: dict) -> None:
    """Of others than the bundled model's nobody knows whose they are, or what a cluster of them is."""
    card = (finished / "cv/card.md").read_text(encoding="utf-8")
    provenance = body["provenance"] | {"dataset_sha256": LC25000_LUNG}
    known = render_card(body | {"provenance": provenance}, "lung-cnn")
    for claim in (
        "LC25000 names no patients", "One institution", "1912.12142v1", "source tile once", "CLAIM",
        "copies of one source tile", "Machine Learning Practice", "## For comparison",
    ):  # fmt: skip
        assert claim in known
        assert claim not in card
    assert "NOTICE, beside this card" in card


def test_the_card_shows_only_plots_that_are_there(finished: Path) -> None:
    """Every plot is linked, small, and no photograph."""
    card = (finished / "cv/card.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(plots/([^)]+)\)", card))
    drawn = {path.name for path in (finished / "cv/plots").iterdir()}
    assert linked == drawn == {"reliability.png", "risk-coverage.png", "confusion.png", "robustness.png"}
    assert all((finished / "cv/plots" / name).stat().st_size < 100_000 for name in drawn)


def test_the_same_answers_make_the_same_figures(data: Path, finished: Path, body: dict) -> None:
    """Seeds decide the draws and the changes; only times of this machine differ."""
    foreign = str(finished / "foreign")
    assert tiny.command("evaluate", data, finished / "cv", "--foreign", foreign, "--draws", "50") == 0
    again = json.loads((finished / "cv/metrics.json").read_text(encoding="utf-8"))
    for part in ("figures", "folds", "robustness", "floors", "failures", "symmetry"):
        assert again[part] == body[part]


@pytest.fixture(scope="module")
def version(data: Path, finished: Path) -> Path:
    """Return the folder of the published release."""
    models = str(finished / "models")
    assert tiny.command("publish", data, finished / "cv", "--version", "0.0.1", "--models", models) == 0
    return finished / "models/lung-cnn-0.0.1"


def test_a_published_release_carries_its_card_and_figures(finished: Path, body: dict, version: Path) -> None:
    """Plots lie beside the card, every file has its digest, and the weights are those of all clusters."""
    manifest = parse_manifest((version / MANIFEST_NAME).read_bytes())
    assert {file.name for file in manifest.files} | {MANIFEST_NAME} == {
        path.name for path in version.iterdir()
    }
    assert (version / "model.keras").read_bytes() == (finished / "cv/release/network.keras").read_bytes()
    assert manifest.metrics["cv_accuracy"] == body["summary"]["cv_accuracy"]
    card = (version / "card.md").read_text(encoding="utf-8")
    assert card.startswith("# lung-cnn 0.0.1\n")
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", card):
        assert (version / name).is_file()


def test_a_published_release_says_what_it_was_made_from(finished: Path, version: Path) -> None:
    """The data, the folds of its figures, and its own training: in enough detail to make it again."""
    manifest = parse_manifest((version / MANIFEST_NAME).read_bytes())
    folds = json.loads((finished / "cv/folds.json").read_text(encoding="utf-8"))
    history = json.loads((finished / "cv/release/history.json").read_text(encoding="utf-8"))
    software = json.loads((finished / "cv/release/software.json").read_text(encoding="utf-8"))
    digests = "\n".join(fold["digest"] for fold in folds["folds"])
    facts = dict(manifest.training)
    assert facts.pop("dataset")
    assert facts == {
        "dataset_sha256": folds["tiles"],
        "split_seed": 1,
        "seed": 1,
        "folds_sha256": hashlib.sha256(digests.encode()).hexdigest(),
        "train_clusters": 27,
        "epochs": 2,
        "seconds": round(sum(epoch["seconds"] for epoch in history)),
        "software": ", ".join(f"{name} {number}" for name, number in software.items()),
        "keras": software["keras"],
    }


def test_what_a_release_is_calibrated_with_is_what_it_publishes(finished: Path, version: Path) -> None:
    """Gates included: the feature space is flagged by the worker from the manifest alone."""
    gates = parse_manifest((version / MANIFEST_NAME).read_bytes()).gates
    calibration = json.loads((finished / "cv/calibration.json").read_text(encoding="utf-8"))
    assert gates.model_dump(mode="json") == calibration["gates"]
    assert gates.features is not None
    assert len(gates.features.projection[0]) == 8


def test_a_calibration_from_before_the_release_is_not_published(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no statistics of the released weights' features."""
    shutil.copytree(finished / "cv", tmp_path / "cv")
    path = tmp_path / "cv/calibration.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(body | {"gates": body["gates"] | {"features": None}}), encoding="utf-8")
    assert tiny.command("publish", data, tmp_path / "cv", "--version", "0.0.4") == 1
    assert "Run `calibrate` again" in capsys.readouterr().err


def test_figures_from_before_the_release_are_not_published(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their card shows the size, the speed and the flags of a fold's weights."""
    shutil.copytree(finished / "cv", tmp_path / "cv")
    shutil.move(tmp_path / "cv/release", tmp_path / "release")
    assert tiny.command("calibrate", data, tmp_path / "cv") == 0
    assert tiny.command("evaluate", data, tmp_path / "cv", "--foreign", "none", "--draws", "5") == 0
    shutil.move(tmp_path / "release", tmp_path / "cv/release")
    assert tiny.command("calibrate", data, tmp_path / "cv") == 0
    capsys.readouterr()
    models = str(tmp_path / "models")
    assert tiny.command("publish", data, tmp_path / "cv", "--version", "0.0.5", "--models", models) == 1
    assert "run `evaluate` again" in capsys.readouterr().err


def test_a_runs_own_figures_are_not_replaced_by_those_of_another_model(
    data: Path, finished: Path, version: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would be published as the run's."""
    before = (finished / "cv/metrics.json").read_bytes()
    assert tiny.command("evaluate", data, finished / "cv", "--model", str(version)) == 1
    assert "Expected a folder of its own for the figures" in capsys.readouterr().err
    assert (finished / "cv/metrics.json").read_bytes() == before


def test_a_release_is_published_into_a_bucket_as_the_live_version(version: Path) -> None:
    """What training wrote is what the registry takes."""
    registry = ModelRegistry(MemoryObjectStore(), "lung-cnn")
    assert registry.publish(version).version == "0.0.1"
    assert registry.live().version == "0.0.1"


def test_weights_that_are_too_large_are_not_published(
    data: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit is named, and nothing is left in the folder of versions."""
    monkeypatch.setattr("training.version_manifest.MAX_WEIGHTS_BYTES", 1000)
    models = finished / "models"
    assert tiny.command("publish", data, finished / "cv", "--version", "0.0.2", "--models", str(models)) == 1
    assert "Expected weights of at most 1000 bytes" in capsys.readouterr().err
    assert not [path for path in models.iterdir() if "0.0.2" in path.name]


def test_folds_without_a_release_cannot_be_published(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures would belong to no weights."""
    shutil.copytree(finished / "cv", tmp_path / "cv")
    shutil.rmtree(tmp_path / "cv/release")
    assert (
        tiny.command("publish", data, tmp_path / "cv", "--version", "0.0.3", "--models", str(tmp_path)) == 1
    )
    assert "train --release" in capsys.readouterr().err


def evaluate_version(version: Path, data: Path, folder: Path, *more: str) -> int:
    shared = ["--model", str(version), "--data", str(data), "--cache", str(folder / "cache"), "--draws", "20"]
    return tiny.call("evaluate", *shared, "--run", str(folder / "report"), *more)


def read_body(folder: Path) -> dict:
    result: dict = json.loads((folder / "report/metrics.json").read_text(encoding="utf-8"))
    return result


def test_a_version_is_scored_on_somebodys_own_folder(data: Path, version: Path, tmp_path: Path) -> None:
    """The same card, from class folders without any list."""
    for name in CLASS_NAMES:
        shutil.copytree(data / name, tmp_path / "own" / name)
    assert evaluate_version(version, tmp_path / "own", tmp_path) == 0
    body = read_body(tmp_path)
    assert body["provenance"]["model"] == "lung-cnn 0.0.1"
    assert body["provenance"]["clusters"] == 27
    card = (tmp_path / "report/card.md").read_text(encoding="utf-8")
    assert "## Under changes" in card
    assert "## Folds" not in card
    assert "lung-cnn 0.0.1, weights `" in card
    assert "very tiles" not in card


def test_a_card_from_elsewhere_claims_nothing_of_the_training_set(
    data: Path, version: Path, large_images: Path, tmp_path: Path
) -> None:
    """Its patients may be known, it may come from many places, and no fold kept anything from the weights."""
    lines = (data / "clusters.csv").read_text(encoding="utf-8").replace("cluster", "patient", 1)
    (tmp_path / "patients.csv").write_text(lines, encoding="utf-8")
    own = ("--groups", str(tmp_path / "patients.csv"))
    for folder, more in ((data, own), (large_images, ("--layout", "lunghist700"))):
        assert evaluate_version(version, folder, tmp_path, *more) == 0
        card = (tmp_path / "report/card.md").read_text(encoding="utf-8")
        for wrong in (
            "names no patients", "One institution", "No external validation", "not been run on the real ones",
            "never saw its cluster", "of the folds", "source tile", "fitted on other clusters", "## Folds",
            "Folds: by cluster", "Not yet measured",
        ):  # fmt: skip
            assert wrong not in card, (folder, wrong)
        assert "what limits it by that, stands in its own card" in card
        assert "a worker gives them no class" in card


def test_a_card_says_that_its_tiles_trained_the_weights(
    data: Path, version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --data, evaluate --model takes the very folder that training takes."""
    assert evaluate_version(version, data, tmp_path) == 0
    assert "was trained on these very tiles" in capsys.readouterr().out
    assert "**These are the very tiles that its weights were fitted on" in (
        tmp_path / "report/card.md"
    ).read_text(encoding="utf-8")


def test_images_of_one_patient_are_drawn_together(data: Path, version: Path, tmp_path: Path) -> None:
    """A list with a column of patients, who may have tissue of several classes."""
    lines = (data / "clusters.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in lines[1:]]
    patients = ["path,class,patient", *(f"{path},{name},{cluster[-1]}" for path, name, cluster in rows)]
    (tmp_path / "patients.csv").write_text("\n".join(patients), encoding="utf-8")
    assert evaluate_version(version, data, tmp_path, "--groups", str(tmp_path / "patients.csv")) == 0
    assert read_body(tmp_path)["provenance"]["groups"] == 9


@pytest.mark.parametrize("listed", [False, True])
def test_an_unreadable_file_of_somebodys_own_is_left_out_only_when_asked(
    data: Path, version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: bool
) -> None:
    """It is named both ways, in a folder of classes and in one with a list of patients."""
    own = Path(shutil.copytree(data, tmp_path / "own"))
    lines = (own / "clusters.csv").read_text(encoding="utf-8").replace("cluster", "patient", 1)
    (tmp_path / "patients.csv").write_text(lines, encoding="utf-8")
    more = ["--groups", str(tmp_path / "patients.csv")] if listed else []
    (own / "lung_aca/3-1.png").write_bytes(b"no image")
    assert evaluate_version(version, own, tmp_path, *more) == 1
    error = capsys.readouterr().err
    assert re.search(r"lung_aca/3-1\.png.*--skip-unreadable", error)
    assert error.count("\n") == 1
    assert evaluate_version(version, own, tmp_path, *more, "--skip-unreadable") == 0
    assert re.search(r"left out: .*lung_aca/3-1\.png", capsys.readouterr().out)
    assert read_body(tmp_path)["provenance"]["tiles"] == 53


def test_what_is_evaluated_is_what_is_served(data: Path, version: Path, tmp_path: Path) -> None:
    """The worker's pipeline gives the same answers for the same files, within 1e-4."""
    from training.own_folder import evaluate_folder  # noqa: PLC0415  # after the skip above
    from worker.engine.pipeline import Pipeline  # noqa: PLC0415
    from worker.engine.predictor import Predictor  # noqa: PLC0415

    _, verdicts = evaluate_folder(version, data, tmp_path, None, draws=2, report=lambda _: None)
    manifest = parse_manifest((version / MANIFEST_NAME).read_bytes())
    pipeline = Pipeline(Predictor(version / manifest.weights, manifest, threads=1), manifest, 10**7)
    for path, expected in list(zip(verdicts.paths, verdicts.answers.probabilities, strict=True))[::7]:
        outcome = pipeline.run([(data / path).read_bytes()])[0]
        served = outcome["result"]["probabilities"]
        assert [served[name] for name in CLASS_NAMES] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.fixture
def large_images(tmp_path: Path) -> Path:
    """Return nine drawn images of six patients in LungHist700's layout, of four tiles each and not twelve."""
    folder = tmp_path / "LungHist700"
    lines = ["superclass,subclass,resolution,image_id,patient_id"]
    kinds = ("nor", "aca_bd", "aca_md", "aca_pd", "scc_bd", "scc_md", "scc_pd", "nor", "nor")
    for number, kind in enumerate(kinds):
        superclass, _, subclass = kind.partition("_")
        resolution = "20x" if number % 2 else "40x"
        lines.append(f"{superclass},{subclass},{resolution},{number},{number % 6}")
        path = folder / f"images/{kind}/{kind}_{resolution}_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_tile(number, 800)).save(path)
    (folder / "data.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_large_images_are_cut_and_their_patients_drawn(
    version: Path, large_images: Path, tmp_path: Path
) -> None:
    """Seven classes become three, and a cluster is a patient."""
    assert evaluate_version(version, large_images, tmp_path, "--layout", "lunghist700") == 0
    body = read_body(tmp_path)
    assert body["provenance"]["images"] == 9
    assert body["provenance"]["patients"] == 6
    assert {name: part["tiles"] for name, part in body["provenance"]["classes"].items()} == {
        "lung_n": 3, "lung_aca": 3, "lung_scc": 3,
    }  # fmt: skip
    assert set(body["by_resolution"]) == {"20x", "40x"}
    assert "of 6 patients" in (tmp_path / "report/card.md").read_text(encoding="utf-8")


def test_an_unreadable_large_image_is_left_out_only_when_asked(
    version: Path, large_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of three of its class, named both ways."""
    (large_images / "images/scc_pd/scc_pd_40x_6.jpg").write_bytes(b"no image")
    layout = ("--layout", "lunghist700")
    assert evaluate_version(version, large_images, tmp_path, *layout) == 1
    assert re.search(r"scc_pd_40x_6\.jpg.*--skip-unreadable", capsys.readouterr().err)
    assert evaluate_version(version, large_images, tmp_path, *layout, "--skip-unreadable") == 0
    assert re.search(r"left out: .*scc_pd_40x_6\.jpg", capsys.readouterr().out)
    assert read_body(tmp_path)["provenance"]["images"] == 8


def test_an_image_is_cut_into_whole_tiles() -> None:
    """1600 x 1200 pixels are twelve tiles of 400; what is left over is not looked at."""
    from training.lunghist700 import cut  # noqa: PLC0415  # after the skip above

    image = np.arange(1200 * 1600 * 3, dtype=np.uint32).astype(np.uint8).reshape(1200, 1600, 3)
    tiles = cut(image, "x")
    assert len(tiles) == 12
    np.testing.assert_array_equal(tiles[5], image[400:800, 400:800])
    assert len(cut(image[:900, :450], "x")) == 2


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("superclass,", "kind,", "Missing: .'superclass'"),
        ("nor,,", "normal,,", "Received: 'normal'"),
        ("_scc", "_scc", "readable image at images/scc_pd"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(
    version: Path, large_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    old: str, new: str, reason: str,
) -> None:  # fmt: skip
    """A column, a class, a file: each is named."""
    path = large_images / "data.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    (large_images / "images/scc_pd/scc_pd_40x_6.jpg").unlink()
    assert evaluate_version(version, large_images, tmp_path, "--layout", "lunghist700") == 1
    assert re.search(reason, capsys.readouterr().err)


@pytest.mark.parametrize(
    "more", [("--skip-unreadable",), ("--groups", "patients.csv"), ("--layout", "lunghist700")]
)
def test_a_runs_own_tiles_are_not_left_out_or_grouped_afterwards(
    data: Path, finished: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    """Its folds were dealt from all of them; an option that does nothing would be believed."""
    assert tiny.command("evaluate", data, finished / "cv", *more) == 1
    assert "Expected --model with --skip-unreadable" in capsys.readouterr().err


def test_evaluate_must_know_what_to_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a run nor a model."""
    assert tiny.call("evaluate") == 1
    assert "Expected --run FOLDER, or --model FOLDER" in capsys.readouterr().err
