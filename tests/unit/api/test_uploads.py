"""What is taken as an image, and the exact code for everything else."""

import contextlib
import hashlib
import io
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from werkzeug.test import create_environ, run_wsgi_app

from api import images
from api.images import read_header
from shared.errors import CallerError
from shared.services import Services
from tests import factories as make

Submit = Callable[..., Any]
MAX_BYTES = 300_000
#: How a form begins that carries a file, up to the file's own bytes.
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def form(*files: tuple[str, bytes, str], **options: str) -> dict[str, Any]:
    """Return a multipart form's data for the test client."""
    fields: dict[str, Any] = dict(options)
    for name, body, filename in files:
        fields.setdefault(name, []).append((io.BytesIO(body), filename))
    return fields


def refusal(answer: Any) -> tuple[int, str]:
    """Return status and code of an answer that must be a problem."""
    assert answer.mimetype == "application/problem+json", answer.data
    return answer.status_code, answer.get_json()["code"]


@pytest.mark.parametrize(
    ("image", "media_type"),
    [
        (make.jpeg_bytes(), "image/jpeg"),
        (make.png_bytes(), "image/png"),
        (make.tiff_bytes(), "image/tiff"),
    ],
)
@pytest.mark.parametrize("declared", ["image/jpeg", "image/webp", "application/octet-stream", None])
def test_content_decides_what_an_image_is(
    submit: Submit, image: bytes, media_type: str, declared: str | None
) -> None:
    """The declared type of an image does not matter, and may be missing."""
    answer = submit(image, content_type=declared)
    assert answer.status_code == 202
    assert answer.get_json()["input"] == {
        "sha256": hashlib.sha256(image).hexdigest(),
        "bytes": len(image),
        "width": 64,
        "height": 48,
        "media_type": media_type,
        "mpp": None,
    }


def test_a_form_with_one_file_is_the_same_as_the_raw_body(
    client: FlaskClient, submit: Submit, services: Services
) -> None:
    """Both ways store the very bytes that were sent, under a key without a name of the caller's."""
    image = make.jpeg_bytes()
    raw = submit(image).get_json()
    formed = client.post("/predict", data=form(("file", image, "patient 4711.jpg"))).get_json()
    assert formed["input"] == raw["input"]
    keys = services.objects.list_keys("uploads/")
    assert [services.objects.get(key, MAX_BYTES)[: len(image)] for key in keys] == [image, image]
    assert {key.rpartition("/")[2] for key in keys} == {raw["id"], formed["id"]}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (b"", (422, "INVALID_IMAGE")),
        (b"just text", (415, "UNSUPPORTED_IMAGE_FORMAT")),
        (make.html_page(), (415, "UNSUPPORTED_IMAGE_FORMAT")),
        (make.encoded(make.tile(), "GIF"), (415, "UNSUPPORTED_IMAGE_FORMAT")),
        (make.encoded(make.tile(), "BMP"), (415, "UNSUPPORTED_IMAGE_FORMAT")),
        (b"\x00" + make.jpeg_bytes(), (415, "UNSUPPORTED_IMAGE_FORMAT")),
        (b"\xff\xd8\xff", (422, "INVALID_IMAGE")),
        (make.truncated(make.jpeg_bytes()), (422, "INVALID_IMAGE")),
        (make.jpeg_bytes()[:-2], (422, "INVALID_IMAGE")),
        (make.truncated(make.jpeg_bytes(), 0.05), (422, "INVALID_IMAGE")),
        (make.truncated(make.png_bytes()), (422, "INVALID_IMAGE")),
        (make.png_bytes()[:-12], (422, "INVALID_IMAGE")),
        (make.png_bytes()[:20], (422, "INVALID_IMAGE")),
        (make.truncated(make.tiff_bytes()), (422, "INVALID_IMAGE")),
        (b"II*\x00\x08\x00\x00\x00", (422, "INVALID_IMAGE")),
        (make.png_file(0, 10, b""), (422, "INVALID_IMAGE")),
        (make.png_with_text_bomb(), (422, "INVALID_IMAGE")),
        (make.png_with_huge_header(), (413, "IMAGE_TOO_LARGE")),
        (make.jpeg_with_huge_header(), (413, "IMAGE_TOO_LARGE")),
        (make.png_bomb(), (413, "IMAGE_TOO_LARGE")),
        (make.png_bytes(1001, 1000), (413, "IMAGE_TOO_LARGE")),
        # No worker would take these.
        (make.png_bytes(1, 1), (422, "INVALID_IMAGE")),
        (make.jpeg_bytes(65_500, 1), (422, "INVALID_IMAGE")),
        (make.tiff_bytes(31, 33), (422, "INVALID_IMAGE")),
    ],
)
@pytest.mark.parametrize("as_form", [False, True])
def test_each_bad_image_has_its_code(
    client: FlaskClient, services: Services, image: bytes, expected: tuple[int, str], as_form: bool
) -> None:
    """Nothing is stored or recorded for it, and the next image is served."""
    data = form(("file", image, "a.jpg")) if as_form else image
    content_type = None if as_form else "image/jpeg"
    assert refusal(client.post("/predict", data=data, content_type=content_type)) == expected
    assert services.objects.list_keys("uploads/") == []
    assert services.jobs.depth().open == 0
    assert client.post("/predict", data=make.jpeg_bytes(), content_type="image/jpeg").status_code == 202


def test_a_whole_jpeg_with_something_behind_it_is_taken(submit: Submit) -> None:
    """Cameras and phones write trailers behind the image."""
    assert submit(make.jpeg_bytes() + b"trailer" * 20_000).status_code == 202


def test_a_thumbnail_does_not_hide_that_the_jpeg_is_cut_short(submit: Submit) -> None:
    """Only an end marker behind the pixel data counts."""
    thumbnail = make.jpeg_bytes(16, 16)
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    image = make.jpeg_bytes()
    cut = image[:2] + exif + image[2:-2]
    assert refusal(submit(cut)) == (422, "INVALID_IMAGE")
    assert submit(cut + b"\xff\xd9").status_code == 202


@pytest.mark.parametrize("image", [make.jpeg_bytes(), make.png_bytes(), make.tiff_bytes()])
def test_no_mutated_header_is_an_error_of_ours(image: bytes) -> None:
    """Whatever stands in a file: its header is read, or it is refused as the caller's."""
    dice = random.Random(20261122)
    for _ in range(700):
        mutant = bytearray(image)
        for _ in range(dice.randrange(1, 6)):
            mutant[dice.randrange(min(len(image), 700))] = dice.randrange(256)
        with contextlib.suppress(CallerError):
            read_header(io.BytesIO(mutant[: dice.choice([len(image), 300])]), 1_000_000)


class Counting(io.BytesIO):
    """A file that counts how often it is read from."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read."""
        self.reads += 1
        return super().read(size)


@pytest.mark.parametrize(
    "image",
    [
        make.jpeg_of_markers(200_000),
        b"\xff" * 2 + b"\xd8" + b"\xff" * 500_000,
        b"\xff\xd8" + b"\xff" * 500_000,
        make.png_of_chunks(100_000),
        make.tiff_of_strips(70_000),
        b"II*\0" + (8).to_bytes(4, "little") + b"\xff\xff" + bytes(12 * 65_535),
        # Blocks of a Photoshop segment are gone through one by one.
        b"\xff\xd8" + (b"\xff\xed\xff\xf4Photoshop 3.0\0" + b"8BIM\1\1\0\0\0\0\0\0" * 5456) * 140,
    ],
    ids=["segments", "no image", "padding", "chunks", "strips", "tags", "blocks"],
)
def test_a_header_that_does_not_end_is_given_up_soon(image: bytes) -> None:
    """Each of its steps is one of Python's: of millions, nobody else's header would be read meanwhile."""
    file = Counting(image)
    with pytest.raises(CallerError, match="Expected"):
        read_header(file, 1_000_000)
    assert file.reads < 11_000


@pytest.mark.parametrize(
    "image",
    [
        make.jpeg_of_scans(2000, 1000),
        make.tiff_of_tiles(1024, 64, 16, 100_000),
        make.tiff_of_tiles(64, 64, 4096, 4112),
        # The decoder reads more kinds of numbers than Pillow does.
        make.tiff_of_tiles(64, 64, 64, 64, kind=17),
    ],
    ids=["scans", "long tiles", "large tile", "kind of number"],
)
def test_an_image_that_is_decoded_over_and_over_is_refused(submit: Submit, image: bytes) -> None:
    """A file of some kilobytes held the engine until that was ended, twice."""
    assert refusal(submit(image)) == (422, "INVALID_IMAGE")


@pytest.mark.parametrize(
    "image",
    [
        make.jpeg_of_scans(300, 512),
        make.jpeg_of_scans(12, 1000),
        make.tiff_of_tiles(300, 200, 256, 256),
        make.tiff_of_tiles(64, 64, 1024, 1024),
    ],
    ids=["scans", "large picture", "tiles", "large tile"],
)
def test_scans_and_tiles_of_usual_number_and_size_are_taken(submit: Submit, image: bytes) -> None:
    """A progressive JPEG, and tiles that lie partly outside their picture."""
    assert submit(image).status_code == 202


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_metadata_of_some_megabytes_are_no_fault(kind: str) -> None:
    """A colour profile, EXIF and XMP; a file of many strips, too."""
    profile, more = random.Random(1).randbytes(3_000_000), dict[str, Any]()
    if kind == "TIFF":
        more["strip_size"] = 1
    if kind == "PNG":
        # Pillow takes no more than a megabyte in one chunk.
        more["pnginfo"], profile = PngInfo(), profile[:900_000]
        for _ in range(3):
            more["pnginfo"].add_itxt("XML:com.adobe.xmp", "a tile " * 130_000)
    exif = Image.Exif()
    exif[0x010E] = "a tile " * 8_000
    image = make.encoded(make.tile(640, 480), kind, exif=exif, icc_profile=profile, **more)
    assert len(image) > 3_000_000
    assert read_header(io.BytesIO(image), 1_000_000).width == 640


def test_whoever_waits_too_long_for_a_turn_is_told_so(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, and nothing is stored; the next one is served again."""
    monkeypatch.setattr("api.images.LONGEST_TURN_SECONDS", 0.01)
    with contextlib.ExitStack() as others:
        for _ in range(4):
            others.enter_context(images._READING)
        answer = submit()
        assert refusal(answer) == (503, "UNAVAILABLE")
        assert answer.headers["Retry-After"]
    assert submit().status_code == 202


@pytest.mark.parametrize("declared", ["application/json", "text/html", "application/x-www-form-urlencoded"])
def test_a_body_that_declares_itself_no_image_is_refused(submit: Submit, declared: str) -> None:
    """Its answer names the types that are taken."""
    answer = submit(content_type=declared)
    assert refusal(answer) == (415, "UNSUPPORTED_IMAGE_FORMAT")
    assert "image/tiff" in answer.headers["Accept"]


def test_a_request_without_a_body_is_malformed(client: FlaskClient) -> None:
    """There is nothing that could be called an image."""
    assert refusal(client.post("/predict")) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "data",
    [
        form(mpp="0.5"),
        form(("image", make.jpeg_bytes(), "a.jpg")),
        form(("file", make.jpeg_bytes(), "a.jpg"), ("file", make.jpeg_bytes(), "b.jpg")),
        form(("file", make.jpeg_bytes(), "a.jpg"), ("mask", make.png_bytes(), "b.png")),
        form(("file", make.jpeg_bytes(), "a.jpg"), colour="pink"),
        form(file="not a file"),
        form(("file", make.jpeg_bytes(), "a.jpg"), **{f"x{number}": "1" for number in range(40)}),
        form(("file", make.jpeg_bytes(), "a.jpg"), custom_id="x" * 250_000),
    ],
)
def test_a_form_carries_exactly_one_file_and_known_options(client: FlaskClient, data: dict[str, Any]) -> None:
    """No file, a wrong field, two files, a second field, too many or too long fields: 400."""
    answer = client.post("/predict", data=data, content_type="multipart/form-data")
    assert refusal(answer) == (400, "INVALID_REQUEST")


def test_the_fields_of_a_form_that_is_refused_are_told(client: FlaskClient) -> None:
    """Whoever misspelt one sees it."""
    files = form(("image", make.jpeg_bytes(), "a.jpg"), ("mask", make.png_bytes(), "b.png"))
    detail = client.post("/predict", data=files).get_json()["detail"]
    assert detail.endswith("Received: 'image', 'mask'")


def test_a_form_that_breaks_off_is_malformed(client: FlaskClient) -> None:
    """The last boundary is missing."""
    answer = client.post(
        "/predict", data=PART + make.jpeg_bytes(), content_type="multipart/form-data; boundary=b"
    )
    assert refusal(answer) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("size", [MAX_BYTES + 1, MAX_BYTES + 70_000, 3_000_000])
@pytest.mark.parametrize("as_form", [False, True])
def test_an_upload_over_the_limit_is_refused_with_the_limit(
    client: FlaskClient, size: int, as_form: bool
) -> None:
    """Just over it, and far over it."""
    image = make.jpeg_bytes().ljust(size, b"\0")
    data = PART + image + b"\r\n--b--\r\n" if as_form else image
    content_type = "multipart/form-data; boundary=b" if as_form else "image/jpeg"
    answer = client.post("/predict", data=data, content_type=content_type)
    assert refusal(answer) == (413, "REQUEST_TOO_LARGE")
    assert answer.get_json()["limit"] == MAX_BYTES


def test_an_upload_at_the_limit_is_taken(submit: Submit) -> None:
    """The limit itself is allowed."""
    assert submit(make.jpeg_bytes().ljust(MAX_BYTES, b"\0")).status_code == 202


class Endless(io.RawIOBase):
    """A body without an end, which counts what was read of it."""

    def __init__(self, start: bytes) -> None:
        self.taken = 0
        self._start = start

    def read(self, size: int = -1) -> bytes:
        """Give as much as is asked for."""
        self.taken += size
        block, self._start = self._start.ljust(size, b"\xff"), b""
        return block


class Breaking(io.RawIOBase):
    """A body whose connection breaks."""

    def read(self, size: int = -1) -> bytes:
        """Fail as a server does, with an error of its own."""
        raise RuntimeError("the server found a bad chunk")


def chunked(app: Flask, stream: io.RawIOBase, content_type: str) -> tuple[int, str]:
    """Send a body of unknown length, as a server hands a chunked one on."""
    return served(app, {"CONTENT_TYPE": content_type, "wsgi.input": stream})


def served(app: Flask, environ: dict[str, Any]) -> tuple[int, str]:
    """Call the application as a server does, which ends the input where the body ends."""
    known = {"wsgi.input_terminated": True, "REMOTE_ADDR": "127.0.0.1"}
    whole = {**create_environ("/predict", method="POST"), **known, **environ}
    body, status, headers = run_wsgi_app(app, whole)
    return refusal(Response(body, status, headers))


@pytest.mark.parametrize("content_type", ["image/jpeg", "multipart/form-data; boundary=b"])
def test_a_body_of_unknown_length_is_cut_off_at_the_limit(app: Flask, content_type: str) -> None:
    """An endless one is read little further than an upload may be."""
    endless = Endless(PART if "form" in content_type else b"")
    expected = (413, "REQUEST_TOO_LARGE")
    assert chunked(app, endless, content_type) == expected
    assert endless.taken < MAX_BYTES + 200_000


@pytest.mark.parametrize("content_type", ["image/jpeg", "multipart/form-data; boundary=b"])
def test_a_body_that_breaks_is_the_callers_error(app: Flask, content_type: str) -> None:
    """Not one of ours: there is nobody to be woken up for it."""
    assert chunked(app, Breaking(), content_type) == (400, "INVALID_REQUEST")


def test_a_body_shorter_than_announced_is_refused(app: Flask) -> None:
    """A client that was cut off did not send a whole image, even if its beginning looks like one."""
    body = io.BytesIO(make.jpeg_bytes())
    environ = {"CONTENT_TYPE": "image/jpeg", "CONTENT_LENGTH": "100000", "wsgi.input": body}
    assert served(app, environ) == (400, "INVALID_REQUEST")


@pytest.fixture(autouse=True)
def no_bomb_warning_is_needed() -> Iterator[None]:
    """Pillow's own limit, which is a setting of the whole process, stays as it is."""
    from PIL import Image  # noqa: PLC0415

    before = Image.MAX_IMAGE_PIXELS
    yield
    assert before == Image.MAX_IMAGE_PIXELS
