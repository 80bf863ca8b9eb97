"""Many images in one request: each is a job of its own, and what cannot be one says why."""

import csv
import io
import json
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from api import create_app
from api.batch_intake import FilesIntake
from api.batch_items import Item
from shared.api_keys import KeyStore, Scope
from shared.batch_archive import BatchArchive, BegunBatch
from shared.errors import JobStoreUnavailable, ObjectStoreUnavailable, RequestTooLarge
from shared.schemas import JobError, JobStatus, Priority, new_job_id
from shared.services import Services
from shared.settings import Settings
from tests.factories import jpeg_bytes, png_bytes, truncated, zip_bytes
from tests.work import Clock, claim, fail, succeed

Finish = Callable[[str], None]


@pytest.fixture
def settings() -> Settings:
    return Settings(
        max_image_bytes=300_000,
        max_image_pixels=1_000_000,
        max_open_jobs=20,
        max_batch_items=30,
        max_batch_bytes=2_000_000,
        batch_key_prefix="incoming/",
    )


def form(files: dict[str, bytes], **fields: str) -> dict[str, Any]:
    """Return a form with these files, all in one field."""
    return {**fields, "file": [(io.BytesIO(body), name) for name, body in files.items()]}


def send_zip(client: FlaskClient, body: bytes, **how: Any) -> Any:
    """Submit an archive as the body."""
    return client.post("/batches", data=body, content_type="application/zip", **how)


def send_files(client: FlaskClient, files: dict[str, bytes], **how: Any) -> Any:
    """Submit files as a form."""
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), body)
        for name, body in files.items()
    ]
    body = b"".join([*parts, b"--x--\r\n"])
    return client.post("/batches", data=body, content_type="multipart/form-data; boundary=x", **how)


def codes(answer: Any) -> dict[str, str]:
    """Return the problems of a submission: name -> code."""
    return {item["custom_id"]: item["code"] for item in answer.json["problems"]}


TILES = {f"x{number}_y0.png": png_bytes(seed=number) for number in range(3)}


def test_an_open_batch_says_when_to_ask_again(
    client: FlaskClient, finish: Finish, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From how fast its members have ended; a completed one, and a page behind which more lies, do not."""
    monkeypatch.setattr("api.batches.wall_clock_ms", clock)
    accepted = send_files(client, TILES)
    where = accepted.headers["Location"]
    assert accepted.headers["Retry-After"] == "1"
    clock.advance(12)
    assert client.get(where).headers["Retry-After"] == "12"
    finish(accepted.json["items"][0]["id"])
    assert client.get(where).headers["Retry-After"] == "24"
    assert client.get(f"{where}/results").headers["Retry-After"] == "24"
    finish(accepted.json["items"][1]["id"])
    assert "Retry-After" not in client.get(f"{where}/results?limit=1").headers
    clock.advance(60)
    assert client.get(where).headers["Retry-After"] == "30"
    finish(accepted.json["items"][2]["id"])
    for path in (where, f"{where}/results"):
        assert "Retry-After" not in client.get(path).headers


@pytest.mark.parametrize("failed", [1, 3])
def test_a_batch_that_is_retried_long_after_is_not_measured_by_its_age(
    failed: int,
    client: FlaskClient,
    services: Services,
    finish: Finish,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where all of it failed, or a part: the hours in between say nothing of how fast it is done now."""
    monkeypatch.setattr("api.batches.wall_clock_ms", clock)
    accepted = send_files(client, TILES)
    where = accepted.headers["Location"]
    ids = [item["id"] for item in accepted.json["items"]]
    for job_id in ids[:failed]:
        assert claim(services.jobs, job_id)
        fail(services.jobs, job_id, JobError(code="ENGINE_FAILED", detail="lost"))
    for job_id in ids[failed:]:
        finish(job_id)
    clock.advance(3600)
    retried = client.post(f"{where}/retry")
    assert retried.json["retried"] == failed
    assert retried.headers["Retry-After"] == str(failed)
    assert client.get(where).headers["Retry-After"] == str(failed)


def test_a_batch_that_is_answered_at_once_needs_no_waiting(services: Services, settings: Settings) -> None:
    """All of it was known: nobody is told to ask again."""
    client = create_app(services, settings).test_client()
    for item in send_files(client, TILES).json["items"]:
        job = claim(services.jobs, item["id"])
        assert job
        succeed(services.jobs, item["id"], {"class": "lung_aca"}, answer_key=job.spec.answer_key)
    again = send_files(client, TILES)
    assert again.json["status"] == "completed"
    assert "Retry-After" not in again.headers


def test_what_is_no_batch_is_told_what_would_be(client: FlaskClient) -> None:
    """415 with the types and 413 with the limit that hold here, no single image's; 400 for nothing."""
    refused = client.post("/batches", data=jpeg_bytes(), content_type="image/jpeg")
    assert (refused.status_code, refused.json["code"]) == (415, "UNSUPPORTED_IMAGE_FORMAT")
    assert refused.headers["Accept"] == "multipart/form-data, application/zip, application/json"
    assert client.post("/batches", data=jpeg_bytes()).status_code == 415
    assert client.post("/batches").status_code == 400
    large = client.post("/batches", data=bytes(2_000_001))
    assert (large.status_code, large.json["code"]) == (413, "BATCH_TOO_LARGE")


def test_a_batch_that_was_begun_and_not_kept_is_kept_by_the_next_request(
    client: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a loss of Redis' data would lose it: the first request ended between the two."""
    headers = {"Idempotency-Key": "k"}

    def away(*_: object) -> None:
        raise ObjectStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(services.objects, "put", away)
        assert send_files(client, TILES, headers=headers).status_code == 503
    batch = send_files(client, TILES, headers=headers).json
    kept = services.objects.list_keys(f"batches/{batch['id']}/batch.json")
    assert len(kept) == 1
    found = BatchArchive(services.objects).read(kept[0])
    assert isinstance(found, BegunBatch)
    assert found.batch.id == batch["id"]


def test_an_item_that_found_no_room_says_how_much_there_is(client: FlaskClient) -> None:
    """As the refusal of a single image does."""
    answer = send_files(client, {f"{number}.png": png_bytes(seed=number) for number in range(22)})
    assert {(item["code"], item["limit"], item["queue_depth"]) for item in answer.json["problems"]} == {
        ("QUEUE_FULL", 20, 20)
    }


def test_links_lead_below_where_the_server_is_mounted(client: FlaskClient) -> None:
    """Of a batch, its jobs and what its webhook was told; the server in front passes the prefix on."""
    mounted = {"environ_overrides": {"SCRIPT_NAME": "/tiles"}}
    batch = send_files(client, TILES, **mounted).json
    where = batch["links"]["self"]
    assert where == f"/tiles/batches/{batch['id']}"
    inside = where.removeprefix("/tiles")
    for answer in (
        batch,
        client.get(inside, **mounted).json,
        client.post(f"{inside}/cancel", **mounted).json,
        client.get(f"{inside}/deliveries", **mounted).json,
        client.get(f"/result/{batch['items'][0]['id']}/deliveries", **mounted).json,
    ):
        assert all(link is None or link.startswith("/tiles/") for link in answer["links"].values()), answer


def test_problems_lead_below_where_the_server_is_mounted(client: FlaskClient, services: Services) -> None:
    """Of a request, an item of a batch, and a job that failed: what explains them, and what they concern."""
    mounted = {"environ_overrides": {"SCRIPT_NAME": "/tiles"}}
    batch = send_files(client, {**TILES, "broken.png": truncated(png_bytes())}, **mounted).json
    job_id = batch["items"][0]["id"]
    claim(services.jobs, job_id)
    fail(services.jobs, job_id, JobError(code="MODEL_ERROR", detail="no number"))
    for problem, instance in (
        (client.get("/nowhere", **mounted).json, "/tiles/nowhere"),
        (batch["problems"][0], "/tiles/batches"),
        (send_files(client, {"broken.png": b"x"}, **mounted).json["problems"][0], "/tiles/batches"),
        (client.get(f"/result/{job_id}", **mounted).json["error"], f"/tiles/result/{job_id}"),
    ):
        assert problem["instance"] == instance
        assert problem["type"].startswith("/tiles/docs/errors#"), problem


def test_many_files_become_jobs_and_the_bad_ones_problems(client: FlaskClient, services: Services) -> None:
    """202 with where the batch is; every item is a job by its name, and bulk."""
    answer = send_files(client, {**TILES, "broken.png": truncated(png_bytes()), "page.html": b"<html>"})
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/batches/{answer.json['id']}"
    assert [item["custom_id"] for item in answer.json["items"]] == list(TILES)
    assert codes(answer) == {"broken.png": "INVALID_IMAGE", "page.html": "UNSUPPORTED_IMAGE_FORMAT"}
    assert (answer.json["accepted"], answer.json["rejected"], answer.json["total"]) == (3, 2, 3)
    for item in answer.json["items"]:
        job = services.jobs.get(item["id"])
        assert (job.spec.custom_id, job.spec.priority) == (item["custom_id"], Priority.BULK)
        assert client.get(item["links"]["self"]).json["batch"] == answer.json["id"]
    assert len(services.queue.bulk_messages) == 3  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("way", ["body", "form"])
def test_an_archive_is_its_files(client: FlaskClient, way: str) -> None:
    """As the body, or as the one file of a form; folders are in the names."""
    body = zip_bytes({f"slide 1/{name}": tile for name, tile in TILES.items()})
    answer = send_zip(client, body) if way == "body" else send_files(client, {"tiles.zip": body})
    assert answer.status_code == 202, answer.text
    assert [item["custom_id"] for item in answer.json["items"]] == [f"slide 1/{name}" for name in TILES]


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
    ],
)
def test_a_malformed_list_of_keys_is_refused(client: FlaskClient, services: Services, body: bytes) -> None:
    """As a whole: 400."""
    services.objects.put("incoming/x0_y0.png", TILES["x0_y0.png"], "image/png")
    answer = client.post("/batches", data=body, content_type="application/json")
    assert (answer.status_code, answer.json["code"]) == (400, "INVALID_REQUEST")


def test_a_batch_is_refused_only_where_nothing_is_valid_or_names_repeat(
    client: FlaskClient, services: Services
) -> None:
    """422, with why; and nothing is left of it."""
    nothing = send_files(client, {"a.png": b"", "b.png": b"text"})
    assert (nothing.status_code, nothing.json["code"]) == (422, "NOTHING_VALID")
    assert codes(nothing) == {"a.png": "INVALID_IMAGE", "b.png": "UNSUPPORTED_IMAGE_FORMAT"}
    files = [(io.BytesIO(jpeg_bytes()), "same.jpg"), (io.BytesIO(jpeg_bytes(seed=1)), "same.jpg")]
    repeated = client.post("/batches", data={"file": files}, content_type="multipart/form-data")
    assert (repeated.status_code, repeated.json["code"]) == (422, "CUSTOM_ID_REPEATED")
    assert services.jobs.depth().open == 0
    assert services.objects.list_keys("uploads/") == []


@pytest.mark.parametrize(
    ("packed", "name"),
    [
        ("Gew\xe4sser 5 µm.png".encode(), "Gew\xe4sser 5 µm.png"),
        ("Gew\xe4sser.png".encode("cp437"), "Gew\xe4sser.png"),
        ("Gew\xe4sser.png".encode("latin-1"), "GewΣsser.png"),
    ],
)
def test_a_name_without_a_word_on_its_letters_is_read_as_tools_write_it(
    client: FlaskClient, packed: bytes, name: str
) -> None:
    """UTF-8 by most of today; else as the format has it, the first PC's."""
    body = zip_bytes({"X" * len(packed): png_bytes()}).replace(b"X" * len(packed), packed)
    assert send_zip(client, body).json["items"][0]["custom_id"] == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../up.png", "leads out"),
        ("a/../../up.png", "leads out"),
        ("/etc/up.png", "leads out"),
        ("C:\\up.png", "leads out"),
        ("a//b.png", "leads out"),
        ("n" * 129, "1 to 128"),
        ("line\nend.png", "1 to 128"),
    ],
)
def test_a_path_that_leads_out_of_its_archive_is_a_problem(client: FlaskClient, name: str, why: str) -> None:
    """Of its item alone."""
    answer = send_zip(client, zip_bytes({name: png_bytes(), "good.png": png_bytes(seed=1)}))
    assert [item["custom_id"] for item in answer.json["items"]] == ["good.png"]
    (problem,) = answer.json["problems"]
    assert problem["code"] == "INVALID_ITEM"
    assert why in problem["detail"]


def test_a_bomb_in_an_archive_is_a_problem_and_takes_no_memory(client: FlaskClient) -> None:
    """By its ratio, by its size, or as an archive in an archive; none is unpacked whole."""
    bombs = {
        "ratio.png": b"\0" * 250_000_000,
        "nested.zip": zip_bytes({"inner.png": b"\0" * 1000}),
    }
    body = zip_bytes({**bombs, "good.png": png_bytes()})
    del bombs
    tracemalloc.start()
    answer = send_zip(client, body)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 202, answer.text
    assert codes(answer) == {"ratio.png": "REQUEST_TOO_LARGE", "nested.zip": "UNSUPPORTED_IMAGE_FORMAT"}
    assert most_bytes < 20_000_000


def test_nothing_of_a_broken_image_is_kept_with_its_problem(services: Services) -> None:
    """Its error came from where its header was read, and all of that would stay until the answer."""
    text = b"\0\x0d\xbb\xa0iTXt" + b"a" * 900_000
    body = zip_bytes({f"{number}.png": png_bytes()[:8] + text for number in range(100)})
    client = create_app(services, Settings()).test_client()
    tracemalloc.start()
    answer = send_zip(client, body)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {problem["code"] for problem in answer.json["problems"]} == {"INVALID_IMAGE"}
    assert most_bytes < 50_000_000


def test_the_ratio_of_an_entry_is_limited(services: Services) -> None:
    """Also of one that is no larger than an image may be."""
    app = create_app(services, Settings(max_image_bytes=20_000_000))
    answer = send_zip(app.test_client(), zip_bytes({"flat.png": b"\0" * 5_000_000, "good.png": png_bytes()}))
    assert codes(answer) == {"flat.png": "INVALID_ITEM"}


def test_what_an_archive_states_of_its_sizes_is_not_believed(client: FlaskClient) -> None:
    """An entry that unpacks to more than its header says is cut off there, and is no image."""
    body = bytearray(zip_bytes({"liar.png": b"\0" * 200_000, "good.png": png_bytes()}))
    at = body.index(b"PK\1\2")
    body[at + 24 : at + 28] = struct.pack("<I", 1000)
    answer = send_zip(client, bytes(body))
    assert codes(answer) == {"liar.png": "INVALID_ITEM"}


def test_files_that_lie_inside_each_other_are_unpacked_once(client: FlaskClient) -> None:
    """A list whose entries all point at one body is how some bombs multiply it."""
    body = bytearray(zip_bytes({"a.png": png_bytes(), "b.png": png_bytes(), "c.png": png_bytes(seed=2)}))
    second = body.index(b"PK\1\2", body.index(b"PK\1\2") + 4)
    body[second + 42 : second + 46] = struct.pack("<I", 0)
    answer = send_zip(client, bytes(body))
    assert codes(answer) == {"b.png": "INVALID_ITEM"}
    assert len(answer.json["items"]) == 2


def test_a_link_in_an_archive_is_a_file_like_any_other(client: FlaskClient) -> None:
    """Its content is a path, and that is no image: nothing is followed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(link, "/etc/passwd")
        made.writestr("good.png", png_bytes())
    assert codes(send_zip(client, packed.getvalue())) == {"link.png": "UNSUPPORTED_IMAGE_FORMAT"}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_a_problem(client: FlaskClient, method: int) -> None:
    """Whose memory nobody limits."""
    answer = send_zip(client, zip_bytes({"a.png": png_bytes()}, method))
    assert (answer.status_code, answer.json["code"]) == (422, "NOTHING_VALID")


@pytest.mark.parametrize(
    "body", [b"PK\3\4", b"PK\5\6", b"", b"no archive", zip_bytes(TILES)[:-30], b"PK\5\6" + b"\xff" * 18]
)
def test_a_broken_archive_is_refused_as_a_whole(client: FlaskClient, body: bytes) -> None:
    """It cannot be told what was in it."""
    answer = send_zip(client, body)
    assert answer.status_code in (400, 413)
    assert answer.content_type == "application/problem+json"


def test_a_batch_has_limits(client: FlaskClient, services: Services) -> None:
    """Items and bytes, packed and unpacked: 413, and nothing is stored."""
    tile = png_bytes(32, 32)
    large = jpeg_bytes(400, 400) + b"\0" * 200_000
    for answer in (
        send_files(client, {f"{number}.png": tile for number in range(31)}),
        send_zip(client, zip_bytes({f"{number}.png": tile for number in range(31)})),
        client.post("/batches", json={"keys": [f"incoming/{number}" for number in range(31)]}),
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


def test_a_full_queue_takes_what_there_is_room_for(client: FlaskClient, services: Services) -> None:
    """The rest are problems that may be tried again; the same request with its key accepts them later."""
    tiles = {f"{number}.png": png_bytes(32, 32, seed=number) for number in range(25)}
    answer = send_files(client, tiles, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json["accepted"]) == (202, 20)
    assert {item["retryable"] for item in answer.json["problems"]} == {True}
    assert set(codes(answer).values()) == {"QUEUE_FULL"}
    assert len(services.objects.list_keys("uploads/")) == 20
    none = send_files(client, {"other.png": png_bytes(seed=3)})
    assert (none.status_code, none.json["code"]) == (429, "QUEUE_FULL")
    for item in answer.json["items"][:10]:
        services.jobs.cancel(item["id"])
    again = send_files(client, tiles, headers={"Idempotency-Key": "k"})
    assert (again.json["id"], again.json["accepted"]) == (answer.json["id"], 25)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = send_files(client, TILES, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_a_ledger_that_goes_away_in_between_loses_nothing(
    client: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not accepted for sure is a problem that may be tried again, and found by the key."""
    tiles = {f"{number}.png": png_bytes(32, 32, seed=number) for number in range(15)}
    create_many = services.jobs.create_many

    def break_off(news: Any, *limits: Any) -> Any:
        return [*create_many(news[:5], *limits), *[JobStoreUnavailable("away")] * (len(news) - 5)]

    monkeypatch.setattr(services.jobs, "create_many", break_off)
    answer = send_files(client, tiles, headers={"Idempotency-Key": "k"})
    assert (answer.json["accepted"], set(codes(answer).values())) == (5, {"JOB_STORE_UNAVAILABLE"})
    assert len(services.objects.list_keys("uploads/")) == 15
    monkeypatch.undo()
    again = send_files(client, tiles, headers={"Idempotency-Key": "k"})
    assert (again.json["accepted"], again.json["problems"]) == (15, [])
    assert services.jobs.depth().open == 15


def test_a_batch_is_canceled_and_retried_as_a_whole(
    client: FlaskClient, services: Services, finish: Finish
) -> None:
    """What has ended stays; a retry takes what failed or expired, and not what its owner ended."""
    batch = send_files(client, {f"{n}.png": png_bytes(32, 32, seed=n) for n in range(6)}).json
    ids = [item["id"] for item in batch["items"]]
    finish(ids[0])
    claim(services.jobs, ids[1])
    fail(services.jobs, ids[1], JobError(code="MODEL_ERROR", detail="x"))
    claim(services.jobs, ids[2])
    canceled = client.post(batch["links"]["cancel"])
    assert (canceled.status_code, canceled.json["canceled"], canceled.json["left"]) == (202, 4, 0)
    assert canceled.json["counts"]["canceled"] == 4
    assert not succeed(services.jobs, ids[2], {})
    retried = client.post(canceled.json["links"]["retry"])
    assert (retried.status_code, retried.json["retried"]) == (202, 1)
    assert services.jobs.get(ids[1]).status == "queued"
    assert retried.json["status"] == "running"
    assert client.post(batch["links"]["cancel"]).json["canceled"] == 1


def test_a_retry_of_a_batch_takes_what_there_is_room_for(
    client: FlaskClient, services: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that expired, too; behind the first that finds none nothing is tried; the rest comes later."""
    monkeypatch.setattr("api.batch_actions._AT_ONCE", 2)
    tiles = {f"{number}.png": png_bytes(32, 32, seed=number) for number in range(7)}
    batch = send_files(client, tiles, query_string={"expires_in": "60"}).json
    ids = [item["id"] for item in batch["items"]]
    claim(services.jobs, ids[0])
    fail(services.jobs, ids[0], JobError(code="MODEL_ERROR", detail="x"))
    clock.advance(61)
    services.jobs.reap(services.jobs.due({}, 100), {})
    for seed in range(18):
        assert client.post("/predict", data=png_bytes(seed=seed), content_type="image/png").status_code == 202
    tried, retry = [], services.jobs.retry

    def note(job_id: str, *limits: int) -> Any:
        tried.append(job_id)
        return retry(job_id, *limits)

    monkeypatch.setattr(services.jobs, "retry", note)
    answer = client.post(f"{batch['links']['self']}/retry")
    assert (answer.json["retried"], answer.json["left"], answer.json["problems"]) == (2, 5, [])
    assert (sorted(tried), answer.headers["Retry-After"]) == (sorted(ids[:4]), "1")
    for job_id in services.jobs.members(batch["id"], 0, 2):
        services.jobs.cancel(job_id)
    answer = client.post(f"{batch['links']['self']}/retry")
    assert (answer.json["retried"], answer.json["left"]) == (2, 3)


def test_a_batch_that_takes_too_long_is_gone_on_with_by_the_same_request(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not reached is told, and nothing was done to it."""
    batch = send_files(client, TILES).json
    with monkeypatch.context() as patch:
        patch.setattr("api.batch_actions.LONGEST_SECONDS", -1.0)
        late = client.post(batch["links"]["cancel"])
    assert (late.json["canceled"], late.json["left"], late.json["counts"]["queued"]) == (0, 3, 3)
    assert late.headers["Retry-After"] == "1"
    again = client.post(batch["links"]["cancel"])
    assert (again.json["canceled"], again.json["left"]) == (3, 0)


def test_what_changes_while_a_batch_is_retried_holds_up_no_other(
    client: FlaskClient, services: Services, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has a result by then and needs no retry; one is deleted, which is a problem of its own."""
    batch = send_files(client, TILES).json
    done, deleted, failed = (item["id"] for item in batch["items"])
    finish(done)
    client.delete(f"/result/{deleted}")
    claim(services.jobs, failed)
    fail(services.jobs, failed, JobError(code="MODEL_ERROR", detail="x"))
    monkeypatch.setattr(services.jobs, "statuses", lambda job_ids: [JobStatus.FAILED] * len(job_ids))
    answer = client.post(f"{batch['links']['self']}/retry")
    assert (answer.json["retried"], answer.json["left"]) == (1, 0)
    assert [(item["id"], item["code"]) for item in answer.json["problems"]] == [(deleted, "RESULT_EXPIRED")]


def test_another_keys_batch_is_not_there(services: Services, clock: Clock) -> None:
    """404 for every route, also when its results are gone; the admin and its owner see it."""
    store = KeyStore(services.objects)
    mine, other, admin = (
        {"Authorization": f"Bearer {store.create(name, scopes)[1]}"}
        for name, scopes in (
            ("a", frozenset({Scope.SUBMIT, Scope.READ})),
            ("b", frozenset({Scope.SUBMIT, Scope.READ})),
            ("c", frozenset({Scope.ADMIN})),
        )
    )
    client = create_app(services, Settings()).test_client()
    links = send_files(client, TILES, headers=mine).json["links"]
    for call, path in (
        (client.get, links["self"]),
        (client.get, links["results"]),
        (client.post, links["cancel"]),
        (client.post, f"{links['self']}/retry"),
    ):
        refused = call(path, headers=other)
        assert (refused.status_code, refused.json["code"]) == (404, "BATCH_NOT_FOUND")
        assert call(path, headers=mine).status_code in (200, 202)
        assert call(path, headers=admin).status_code in (200, 202)
    for path in (f"/batches/{new_job_id()}", "/batches/nothing"):
        assert client.get(path, headers=mine).status_code == 404
    client.post(links["cancel"], headers=mine)
    clock.advance(8 * 86_400)
    asked = [client.get(links["self"], headers=headers).status_code for headers in (mine, other, admin)]
    assert asked == [410, 404, 410]


def test_a_batch_past_its_retention_is_gone(client: FlaskClient, clock: Any) -> None:
    """410, as its jobs."""
    batch = send_files(client, TILES).json
    client.post(batch["links"]["cancel"])
    clock.advance(8 * 86_400)
    for path in (batch["links"]["self"], batch["links"]["results"]):
        assert (client.get(path).status_code, client.get(path).json["code"]) == (410, "RESULT_EXPIRED")
