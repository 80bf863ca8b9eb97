"""What is in the body of a batch: files of a form, or keys of the bucket."""

import io
import zipfile
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.batch_intake import FilesIntake
from api.batch_items import Item
from shared.errors import RequestTooLarge
from shared.services import Services
from tests.factories import jpeg_bytes, png_bytes, zip_bytes
from tests.unit.api.batches.conftest import TILES, codes, send_files, send_zip


def form(files: dict[str, bytes], **fields: str) -> dict[str, Any]:
    """Return a form with these files, all in one field."""
    return {**fields, "file": [(io.BytesIO(body), name) for name, body in files.items()]}


def test_what_is_no_batch_is_told_what_would_be(client: FlaskClient) -> None:
    """415 with the types and 413 with the limit that hold here, no single image's; 400 for nothing."""
    refused = client.post("/batches", data=jpeg_bytes(), content_type="image/jpeg")
    assert (refused.status_code, refused.json["code"]) == (415, "UNSUPPORTED_IMAGE_FORMAT")
    assert refused.headers["Accept"] == "multipart/form-data, application/zip, application/json"
    assert client.post("/batches", data=jpeg_bytes()).status_code == 415
    assert client.post("/batches").status_code == 400
    large = client.post("/batches", data=bytes(2_000_001))
    assert (large.status_code, large.json["code"]) == (413, "BATCH_TOO_LARGE")


def test_files_larger_than_what_is_read_at_once_come_whole(client: FlaskClient, services: Services) -> None:
    """Each over several blocks, with ends at every place of one."""
    files = {f"{extra}.png": png_bytes() + bytes(100_000 + 997 * extra) for extra in range(12)}
    answer = send_files(client, files)
    assert (answer.status_code, answer.json["accepted"]) == (202, 12)
    for item, body in zip(answer.json["items"], files.values(), strict=True):
        assert services.jobs.get(item["id"]).spec.input.bytes == len(body)


def test_a_form_with_a_flood_of_text_is_refused(client: FlaskClient) -> None:
    """It never lies in memory."""
    flood = b'--x\r\nContent-Disposition: form-data; name="mpp"\r\n\r\n' + b"1" * 1_000_000 + b"\r\n--x--\r\n"
    answer = client.post("/batches", data=flood, content_type="multipart/form-data; boundary=x")
    assert (answer.status_code, answer.json["code"]) == (400, "INVALID_REQUEST")
    assert "65536 bytes" in answer.json["detail"]


def test_objects_of_the_bucket_are_submitted_by_their_keys(
    client: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the one prefix alone; a name may be given, and else is the rest of the key."""
    get = services.objects.get
    # As every store does that is not of memory.
    monkeypatch.setattr(services.objects, "get", lambda key, most: key.encode() and get(key, most))
    for name, body in TILES.items():
        services.objects.put(f"incoming/day/{name}", body, "image/png")
    keys = [
        "incoming/day/x0_y0.png",
        {"key": "incoming/day/x1_y0.png", "custom_id": "second"},
        "incoming/none.png",
        "uploads/x",
        "incoming/../models/x",
        "incoming/./x",
        {"key": "incoming/\ud800", "custom_id": "half"},
    ]
    answer = client.post("/batches", json={"keys": keys})
    assert [item["custom_id"] for item in answer.json["items"]] == ["day/x0_y0.png", "second"]
    wrong = ("none.png", "uploads/x", "../models/x", "./x", "half")
    assert codes(answer) == dict.fromkeys(wrong, "INVALID_ITEM")


def test_a_list_of_anything_is_not_read_into_memory(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bytes of it may take sixty."""
    monkeypatch.setattr("api.batch_intake.json.loads", None)
    for item in (b"{}", b"[]", b"1"):
        body = b'{"keys": [' + b",".join([item] * 600) + b"]}"
        assert client.post("/batches", data=body, content_type="application/json").status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"{",
            b"[]",
            b'{"keys": "x"}',
            b'{"keys": [1]}',
            b'{"keys": [{"custom_id": "x"}]}',
            b"[" * 9000,
        ),
        # Options of all items are query parameters.
        b'{"keys": ["incoming/x0_y0.png"], "mpp": 0.5}',
        # Which of the two is meant cannot be told.
        b'{"keys": [], "keys": ["incoming/x0_y0.png"]}',
        b'{"keys": [{"key": "incoming/other", "key": "incoming/x0_y0.png"}]}',
    ],
)
def test_a_malformed_list_of_keys_is_refused(client: FlaskClient, services: Services, body: bytes) -> None:
    """As a whole: 400."""
    services.objects.put("incoming/x0_y0.png", TILES["x0_y0.png"], "image/png")
    answer = client.post("/batches", data=body, content_type="application/json")
    assert (answer.status_code, answer.json["code"]) == (400, "INVALID_REQUEST")


def test_a_batch_has_limits(client: FlaskClient, services: Services) -> None:
    """Items and bytes, packed and unpacked: 413, and nothing is stored."""
    tile = png_bytes(32, 32)
    large = jpeg_bytes(400, 400) + b"\0" * 200_000
    for answer in (
        send_files(client, {f"{number}.png": tile for number in range(31)}),
        send_zip(client, zip_bytes({f"{number}.png": tile for number in range(31)})),
        client.post("/batches", json={"keys": [f"incoming/{number}" for number in range(31)]}),
        client.post("/batches", data=b'{"keys": []}'.ljust(34_000), content_type="application/json"),
        send_files(client, {f"{number}.jpg": large for number in range(15)}),
        send_zip(client, zip_bytes({f"{number}.jpg": large for number in range(15)}, zipfile.ZIP_STORED)),
        send_zip(client, zip_bytes({f"{number}.jpg": large for number in range(15)})),
    ):
        assert (answer.status_code, answer.json["code"]) == (413, "BATCH_TOO_LARGE")
    assert services.objects.list_keys("uploads/") == []


def test_an_image_that_is_too_large_is_a_problem_of_its_own(client: FlaskClient) -> None:
    """The others are accepted."""
    answer = send_files(client, {"large.jpg": jpeg_bytes() + b"\0" * 400_000, **TILES})
    assert codes(answer) == {"large.jpg": "REQUEST_TOO_LARGE"}
    alone = send_files(client, {"large.jpg": jpeg_bytes() + b"\0" * 400_000})
    assert (alone.status_code, alone.json["code"]) == (422, "NOTHING_VALID")
    spool = io.BytesIO(bytes(100))
    with pytest.raises(RequestTooLarge):
        FilesIntake(spool, most_bytes=99).open(Item("large.jpg", size=100))
    assert spool.tell() == 0, "it is not read into memory first"


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"x", "text/plain"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x", "multipart/form-data"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\nb\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nbreaks off',
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_a_malformed_body_is_refused(client: FlaskClient, data: bytes, content_type: str) -> None:
    """As a whole, by what is wrong with it."""
    answer = client.post("/batches", data=data, content_type=content_type)
    assert answer.status_code == (415 if content_type == "text/plain" else 400), answer.text


def test_options_are_those_of_all_items(client: FlaskClient, services: Services) -> None:
    """From the form or the query; what each item has for itself is none of them."""
    answer = client.post(
        "/batches?mpp=0.5", data=form(TILES, expires_in="60"), content_type="multipart/form-data"
    )
    job = services.jobs.get(answer.json["items"][0]["id"])
    assert (job.spec.input.mpp, job.deadline_ms - job.created_at_ms) == (0.5, 60_000)
    for name in ("custom_id", "priority", "other"):
        assert send_files(client, TILES, query_string={name: "bulk"}).status_code == 400
    unknown = send_files(client, TILES, query_string={"model_version": "9.9.9"})
    assert (unknown.status_code, unknown.json["code"]) == (422, "UNKNOWN_MODEL_VERSION")
