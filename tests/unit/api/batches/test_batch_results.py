"""The results of a batch so far: in pages, as lines, tables and shapes."""

import csv
import io
import json

import pytest
from flask.testing import FlaskClient

from shared.errors import JobStoreUnavailable
from shared.schemas import JobError
from shared.services import Services
from tests.factories import png_bytes
from tests.unit.api.batches.conftest import TILES, Finish, send_files
from tests.work import claim, fail, succeed


def test_counts_and_results_follow_the_jobs(client: FlaskClient, services: Services, finish: Finish) -> None:
    """By status and by reason; results so far by name, with a cursor that finds what ended since."""
    batch = send_files(client, TILES).json
    first, second, third = (item["id"] for item in batch["items"])
    finish(second)
    shown = client.get(batch["links"]["self"]).json
    assert (shown["status"], shown["counts"]["queued"], shown["counts"]["succeeded"]) == ("running", 2, 1)
    page = client.get(batch["links"]["results"])
    assert [json.loads(line)["custom_id"] for line in page.text.splitlines()] == ["x1_y0.png"]
    assert page.headers["X-Next-Cursor"] == "1"
    claim(services.jobs, first)
    fail(services.jobs, first, JobError(code="POISON", detail="x"))
    finish(third)
    following = page.headers["Link"].split(">")[0].removeprefix("<")
    rows = [json.loads(line) for line in client.get(following).text.splitlines()]
    assert [(row["custom_id"], row["status"]) for row in rows] == [
        ("x0_y0.png", "failed"),
        ("x2_y0.png", "succeeded"),
    ]
    shown = client.get(batch["links"]["self"]).json
    assert (shown["status"], shown["reasons"]) == ("completed", {"POISON": 1})
    last = client.get(batch["links"]["results"], query_string={"limit": "10"})
    assert "Link" not in last.headers
    assert len(last.text.splitlines()) == 3
    beyond = client.get(batch["links"]["results"], query_string={"cursor": "99"})
    assert (beyond.text, beyond.headers["X-Next-Cursor"]) == ("", "3")


def test_results_are_tables_and_shapes_too(client: FlaskClient, finish: Finish) -> None:
    """CSV runs no formula in a spreadsheet; GeoJSON has a polygon where the name tells the place."""
    batch = send_files(
        client, {"=1+1.png": png_bytes(), "a [x=512,y=1024,w=256,h=256].png": png_bytes(seed=1)}
    ).json
    for item in batch["items"]:
        finish(item["id"])
    table = client.get(batch["links"]["results"], query_string={"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert rows[0]["custom_id"] == "'=1+1.png"
    assert (rows[1]["class"], rows[1]["status"]) == ("lung_aca", "succeeded")
    shapes = client.get(batch["links"]["results"], query_string={"format": "geojson"}).json
    # QuPath reads no file in which any feature has no geometry.
    (shape,) = shapes["features"]
    assert shapes["unplaced"] == ["=1+1.png"]
    assert shape["geometry"]["coordinates"][0][2] == [768, 1280]
    assert shape["properties"]["classification"]["name"] == "lung_aca"
    for wrong in ({"format": "xml"}, {"cursor": "-1"}, {"limit": "99999"}, {"limit": "0"}, {"cursor": "x"}):
        assert client.get(batch["links"]["results"], query_string=wrong).status_code == 400


def test_a_query_of_results_that_nobody_reads_is_refused(client: FlaskClient) -> None:
    """With a misspelt cursor the first page would come again and again."""
    results = send_files(client, TILES).json["links"]["results"]
    for wrong in ("curser=2", "cursor=1&cursor=2"):
        assert client.get(f"{results}?{wrong}").json["code"] == "INVALID_REQUEST"


def test_a_page_of_results_is_as_long_as_it_says(
    client: FlaskClient, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is read together: following the links tells each row once."""
    monkeypatch.setattr("api.batch_results.AT_ONCE", 2)
    batch = send_files(client, {f"{n}.png": png_bytes(32, 32, seed=n) for n in range(7)}).json
    for item in batch["items"]:
        finish(item["id"])
    told, address = [], f"{batch['links']['results']}?limit=3"
    while address:
        page = client.get(address)
        told.append([json.loads(line)["custom_id"] for line in page.text.splitlines()])
        address = page.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert told == [["0.png", "1.png", "2.png"], ["3.png", "4.png", "5.png"], ["6.png"]]
    table = client.get(batch["links"]["results"], query_string={"limit": "3", "format": "csv"})
    assert len(table.text.splitlines()) == 4
    following = client.get(table.headers["Link"].partition(">")[0].removeprefix("<"))
    assert following.text.splitlines()[0] == table.text.splitlines()[0]


def test_a_row_has_all_that_was_found_or_why_nothing_was(client: FlaskClient, services: Services) -> None:
    """In a table and in a shape, which takes the tile's own size where its name tells only its corner."""
    names = ("x10_y20.png", "x30_y40,w=70,h=90.png", "-2+x5_y6.png")
    batch = send_files(client, {name: png_bytes(seed=seed) for seed, name in enumerate(names)}).json
    unsure, sure, failed = (item["id"] for item in batch["items"])
    result = {
        "class": "lung_scc",
        "label": "Lung squamous cell carcinoma",
        "confidence": 0.5,
        "cancer_probability": 0.75,
        "verdict": "indeterminate",
        "reasons": ["low_confidence", "blurred"],
        "probabilities": {"lung_n": 0.25, "lung_scc": 0.5},
        "quality": {"sharpness": 3.5, "feature_distance": None},
    }
    for job_id, verdict in ((unsure, "indeterminate"), (sure, "classified")):
        claim(services.jobs, job_id)
        succeed(services.jobs, job_id, {**result, "verdict": verdict})
    claim(services.jobs, failed)
    fail(services.jobs, failed, JobError(code="INVALID_IMAGE", detail="=It breaks off."))
    table = client.get(batch["links"]["results"], query_string={"format": "csv"}).text
    first, _, last = csv.DictReader(io.StringIO(table))
    assert (first["class"], first["verdict"], first["reasons"]) == (
        "lung_scc",
        "indeterminate",
        "low_confidence;blurred",
    )
    assert (first["confidence"], first["cancer_probability"]) == ("0.5", "0.75")
    assert json.loads(first["probabilities"]) == result["probabilities"]
    assert (first["width"], first["height"], first["model_version"]) == ("64", "48", "1.0.0")
    assert (last["custom_id"], last["error_code"], last["error_detail"]) == (
        "'-2+x5_y6.png",
        "INVALID_IMAGE",
        "'=It breaks off.",
    )
    assert (last["class"], last["job_id"]) == ("", failed)
    shapes = client.get(batch["links"]["results"], query_string={"format": "geojson"}).json["features"]
    classes = [shape["properties"]["classification"]["name"] for shape in shapes]
    assert classes == ["indeterminate", "lung_scc", "failed"]
    corners = [shape["geometry"]["coordinates"][0][:3:2] for shape in shapes]
    assert corners == [[[10, 20], [74, 68]], [[30, 40], [100, 130]], [[5, 6], [69, 54]]]
    assert shapes[0]["properties"]["measurements"] == {
        "confidence": 0.5,
        "cancer_probability": 0.75,
        "probability lung_n": 0.25,
        "probability lung_scc": 0.5,
        "gate sharpness": 3.5,
    }
    assert shapes[2]["properties"]["metadata"]["error"] == "INVALID_IMAGE: =It breaks off."


def test_a_rejected_tile_has_a_row_and_a_shape(client: FlaskClient, services: Services) -> None:
    """Its class and its probabilities are null: that is no reason to break off."""
    batch = send_files(client, {"x0_y0.png": png_bytes()}).json
    job_id = batch["items"][0]["id"]
    nothing = dict.fromkeys(("class", "label", "confidence", "probabilities", "cancer_probability"))
    result = {**nothing, "verdict": "rejected", "reasons": ["background"], "quality": {"sharpness": 0.5}}
    claim(services.jobs, job_id)
    succeed(services.jobs, job_id, result)
    table = client.get(batch["links"]["results"], query_string={"format": "csv"}).text
    (row,) = csv.DictReader(io.StringIO(table))
    assert (row["verdict"], row["class"], row["probabilities"]) == ("rejected", "", "")
    (shape,) = client.get(batch["links"]["results"], query_string={"format": "geojson"}).json["features"]
    assert shape["properties"]["classification"]["name"] == "rejected"
    assert shape["properties"]["measurements"] == {"gate sharpness": 0.5}


@pytest.mark.parametrize("begin", ["=", "+", "-", "@"])
def test_no_cell_of_a_table_is_run_by_a_spreadsheet(client: FlaskClient, finish: Finish, begin: str) -> None:
    """As a formula; a number that is negative stays one."""
    batch = send_files(client, {f"{begin}1.png": png_bytes()}).json
    finish(batch["items"][0]["id"])
    table = client.get(batch["links"]["results"], query_string={"format": "csv"}).text
    (row,) = csv.DictReader(io.StringIO(table))
    assert row["custom_id"] == f"'{begin}1.png"


@pytest.mark.parametrize("form", ["ndjson", "csv", "geojson"])
def test_results_that_cannot_be_read_are_told_before_the_first_line(
    client: FlaskClient, services: Services, finish: Finish, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A ledger that goes away once the batch was found is a 503 too, and no answer that breaks off."""
    batch = send_files(client, TILES).json
    finish(batch["items"][0]["id"])

    def away(*_: object) -> None:
        raise JobStoreUnavailable("away")

    monkeypatch.setattr(services.jobs, "ended", away)
    answer = client.get(f"{batch['links']['results']}?format={form}")
    assert (answer.status_code, answer.json["code"]) == (503, "JOB_STORE_UNAVAILABLE")
    assert answer.headers["Retry-After"] == "5"
