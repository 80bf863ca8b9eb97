"""A zip archive as a batch: what is in it, what it only says is in it, and what it costs to look."""

import io
import stat
import struct
import tracemalloc
import zipfile

import pytest
from flask.testing import FlaskClient

from api import create_app
from shared.services import Services
from shared.settings import Settings
from tests.factories import png_bytes, zip_bytes
from tests.unit.api.batches.conftest import TILES, codes, send_files, send_zip


@pytest.mark.parametrize("way", ["body", "form"])
def test_an_archive_is_its_files(client: FlaskClient, way: str) -> None:
    """As the body, or as the one file of a form; folders are in the names."""
    body = zip_bytes({f"slide 1/{name}": tile for name, tile in TILES.items()})
    answer = send_zip(client, body) if way == "body" else send_files(client, {"tiles.zip": body})
    assert answer.status_code == 202, answer.text
    assert [item["custom_id"] for item in answer.json["items"]] == [f"slide 1/{name}" for name in TILES]


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
    (problem,) = answer.json["problems"]
    assert (problem["custom_id"], problem["code"]) == ("b.png", "INVALID_ITEM")
    # Said before it is opened; that would fail by its name, which a bomb gets right.
    assert "inside another" in problem["detail"]
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


def with_long_end(body: bytes, listed: int) -> bytes:
    """Return an archive whose end is written as that of very large ones, with so many entries stated."""
    end = body[-22:]
    size, offset = struct.unpack("<II", end[12:20])
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, listed, listed, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) - 22, 1)
    return body[:-22] + end64 + locator + end[:8] + b"\xff" * 12 + end[20:]


def test_an_archive_may_state_its_length_as_very_large_ones_do(client: FlaskClient) -> None:
    """Some tools always write it so; that is held to the same limit, before the list is read."""
    answer = send_zip(client, with_long_end(zip_bytes(TILES), len(TILES)))
    assert (answer.status_code, answer.json["accepted"]) == (202, len(TILES)), answer.text
    answer = send_zip(client, with_long_end(zip_bytes(TILES), 61))
    assert (answer.status_code, answer.json["code"]) == (413, "BATCH_TOO_LARGE")


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
