"""The facts of a model version: whole, in range, and about one another."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidModel
from shared.manifest import parse_manifest
from tests.factories import write_model


@pytest.fixture
def facts(tmp_path: Path) -> dict[str, Any]:
    """Those of a version that has everything."""
    facts: dict[str, Any] = json.loads((write_model(tmp_path / "one") / "manifest.json").read_text())
    features = {"projection": [[1.0, 0.0], [0.0, 1.0]], "centres": [[0.0, 0.0]], "distance": 4.0}
    facts["gates"] |= {"features": features, "mpp": [0.35, 0.6]}
    return facts


def test_a_manifest_reads_back_as_it_was_written(facts: dict[str, Any]) -> None:
    """Every fact of it."""
    assert json.loads(parse_manifest(json.dumps(facts)).model_dump_json()) == facts


@pytest.mark.parametrize(
    ("where", "fact"),
    [
        ("name", "../lung-cnn"),
        ("version", "1.0"),
        ("version", "../1.0.0"),
        ("weights", "../weights.keras"),
        ("weights", "another.keras"),
        ("onnx", "another.onnx"),
        ("classes", [{"name": "lung_n", "label": "lung_n", "malignant": False}] * 3),
        ("input.width", 0),
        ("input.height", 0),
        ("input.width", 4097),
        ("input.height", 4097),
        ("input.resample", "nearest"),
        ("temperature", 0),
        ("indeterminate_below", 1.1),
        ("gates.colour.0.mean", [0.0] * 5),
        ("gates.colour.0.mean", [0.0] * 7),
        ("gates.colour.0.inverse_covariance", [[0.0] * 6] * 5),
        ("gates.colour.0.inverse_covariance", [[0.0] * 6] * 7),
        ("gates.features.projection", []),
        ("gates.features.projection", [[1.0, 0.0], [0.0]]),
        ("gates.features.centres", []),
        ("gates.features.centres", [[0.0]]),
        ("gates.features.distance", -1),
        ("golden", []),
        ("golden.0.file", "another.png"),
        ("golden.0.probabilities", [0.5, 0.5]),
        ("golden_tolerance", 0),
        ("golden_tolerance", 0.06),
        ("files", []),
        ("files.0.bytes", 0),
        ("files.0.sha256", "A" * 64),
        ("surplus", 1),
    ],
)
def test_a_fact_that_is_out_of_range_is_refused(facts: dict[str, Any], where: str, fact: object) -> None:
    """Before a weight is opened, and before anything is put where its name would say."""
    *folders, name = where.split(".")
    part: Any = facts
    for folder in folders:
        part = part[int(folder) if isinstance(part, list) else folder]
    part[name] = fact
    with pytest.raises(InvalidModel):
        parse_manifest(json.dumps(facts))


def test_a_model_tells_two_classes_apart_at_least(facts: dict[str, Any]) -> None:
    """With one, every image is of it."""
    facts["classes"] = facts["classes"][:1]
    facts["golden"][0]["probabilities"] = [1.0]
    with pytest.raises(InvalidModel, match="classes"):
        parse_manifest(json.dumps(facts))
