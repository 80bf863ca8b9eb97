"""The client against the whole system, with the model that it serves."""

import json
from pathlib import Path

import pytest
from histoqueue import Client, InvalidImage
from histoqueue._cli import main

from tests import factories
from tests.stack import Stack, png

pytestmark = [pytest.mark.integration, pytest.mark.tensorflow]


def test_real_tiles_get_their_right_class(stack: Stack, real_tiles: Path) -> None:
    """Eight of each class, through `map`: were answers and tiles mixed up, a third would be right."""
    tiles = [
        path
        for name in ("lung_n", "lung_aca", "lung_scc")
        for path in sorted((real_tiles / name).iterdir())[::400][:8]
    ]
    with Client(stack.url) as client:
        found = {item.source: item.job for item in client.map(tiles, concurrency=8)}
    right = [path for path in tiles if (job := found[path]) and job.outcome().class_name == path.parent.name]
    assert len(right) >= 18, [path.name for path in tiles if path not in right]


def test_a_folder_becomes_files(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drawn tiles and a broken one: each has its row and its polygon, with what the model measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HISTOQUEUE_URL", stack.url)
    Path("tiles").mkdir()
    for number in range(10):
        Path(f"tiles/x{number * 224}_y0.png").write_bytes(png(number))
    Path("tiles/x0_y224.png").write_bytes(factories.png_file(64, 64, b"no deflate stream"))
    places = ["--coordinates", r"x(?P<x>\d+)_y(?P<y>\d+)"]
    assert main(["submit", "tiles", "--out", "r.ndjson", "--out", "r.geojson", *places, "--quiet"]) == 1
    assert capsys.readouterr() == ("", "")
    rows = [json.loads(line) for line in Path("r.ndjson").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["succeeded", "failed", *["succeeded"] * 9]
    assert rows[1]["error"]["code"] == "INVALID_IMAGE"
    features = json.loads(Path("r.geojson").read_text())["features"]
    assert len(features) == 11
    names = {one["properties"]["classification"]["name"] for one in features}
    assert names <= {"lung_n", "lung_aca", "lung_scc", "indeterminate", "rejected", "failed"}
    assert all(
        "gate sharpness" in one["properties"]["measurements"]
        for one in features
        if one["properties"]["metadata"]["status"] == "succeeded"
    )


def test_a_broken_image_is_its_own_error(stack: Stack) -> None:
    """Raised where its outcome is wanted."""
    with Client(stack.url) as client:
        job = client.submit(factories.png_file(64, 64, b"no deflate stream"), wait=30)
        with pytest.raises(InvalidImage):
            job.outcome()


def test_doctor_is_content(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """With a system that was just started."""
    assert main(["doctor", "--server", stack.url]) == 0
    assert "BAD" not in capsys.readouterr().out
