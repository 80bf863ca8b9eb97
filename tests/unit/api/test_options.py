"""Options come as form fields or query parameters, and are all understood or refused."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.services import Services
from tests.factories import jpeg_bytes

Submit = Callable[..., Any]


def test_options_may_be_form_fields(client: FlaskClient, services: Services) -> None:
    """They mean the same as in the query."""
    fields = {"file": (io.BytesIO(jpeg_bytes()), "a.jpg"), "mpp": "0.25", "custom_id": "Präparat 7"}
    job = client.post("/predict?expires_in=90", data=fields).get_json()
    assert (job["input"]["mpp"], job["custom_id"]) == (0.25, "Präparat 7")
    stored = services.jobs.get(job["id"])
    assert stored.deadline_ms - stored.created_at_ms == 90_000


@pytest.mark.parametrize(
    "query",
    [
        "expires_in=0",
        "expires_in=-1",
        "expires_in=604801",
        "expires_in=soon",
        "expires_in=nan",
        "expires_in=inf",
        "expires_in=",
        "mpp=0.01",
        "mpp=11",
        "mpp=1;2",
        "mpp=1_0",
        "mpp=%D9%A1",
        "mpp=+1",
        "explain=T",
        "explain=1",
        "explain=",
        "cache=off",
        "custom_id=",
        "custom_id=" + "x" * 129,
        "custom_id=a%0Ab",
        "custom_id=a%00b",
        "model_version=" + "1" * 41,
    ],
)
def test_a_value_out_of_range_is_refused_by_name(submit: Submit, query: str) -> None:
    """400, saying which option, what was expected and what came."""
    answer = submit(path=f"/predict?{query}")
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (400, "INVALID_REQUEST")
    assert query.partition("=")[0] in problem["detail"]
    assert "Expected" in problem["detail"]
    assert "Received" in problem["detail"]


@pytest.mark.parametrize("name", ["wait", "MPP", "x" * 500])
def test_an_option_that_is_not_there_yet_is_refused(submit: Submit, name: str) -> None:
    """It is never accepted and ignored."""
    answer = submit(path=f"/predict?{name}=true")
    assert answer.status_code == 400
    assert len(answer.get_json()["detail"]) < 300


@pytest.mark.parametrize(
    "query", ["mpp=.5", "mpp=5e-1", "mpp=0.50", "explain=True", "explain=FALSE", "cache=true"]
)
def test_a_number_and_a_flag_may_be_written_as_programs_do(submit: Submit, query: str) -> None:
    """Python's words for true and false, too."""
    assert submit(path=f"/predict?{query}").status_code == 202


@pytest.mark.parametrize("path", ["/predict", "/batches"])
def test_text_that_is_not_utf_8_is_refused(client: FlaskClient, path: str) -> None:
    """It would be given back, or understood, as something else."""
    part = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    file = part % (b'file"; filename="a.jpg', jpeg_bytes())
    for name in (b"custom_id", b"model_version"):
        body = file + part % (name, "Pr\xe4parat".encode("latin-1")) + b"--b--\r\n"
        answer = client.post(path, data=body, content_type="multipart/form-data; boundary=b")
        assert answer.status_code == 400
    assert "UTF-8" in answer.get_json()["detail"]


@pytest.mark.parametrize("filename", [b"", b'; filename="a.png"'])
@pytest.mark.parametrize("path", ["/predict", "/batches"])
def test_a_part_of_a_form_that_has_no_name_is_refused(
    client: FlaskClient, path: str, filename: bytes
) -> None:
    """Be it a file or an option; a form's sound file goes before it."""
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data%s\r\n\r\n%s\r\n" % (said, jpeg_bytes())
        for said in (b'; name="file"; filename="b.png"', filename)
    )
    answer = client.post(path, data=body + b"--x--\r\n", content_type="multipart/form-data; boundary=x")
    assert (answer.status_code, answer.json["code"]) == (400, "INVALID_REQUEST")


def test_the_same_option_twice_is_refused(client: FlaskClient, submit: Submit) -> None:
    """Whether both stand in the query or one stands in the form."""
    assert submit(path="/predict?mpp=1&mpp=1").status_code == 400
    fields = {"file": (io.BytesIO(jpeg_bytes()), "a.jpg"), "mpp": "1"}
    assert client.post("/predict?mpp=1", data=fields).status_code == 400
