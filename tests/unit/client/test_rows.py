"""What a row says where there is no result."""

import pytest
from histoqueue import HistoQueueError, JobRecord, Problem, Unavailable
from histoqueue._rows import entry_of_job, entry_of_refusal


@pytest.mark.parametrize(("status", "code"), [("canceled", "CANCELED"), ("expired", "EXPIRED")])
def test_a_job_that_ended_without_a_word_is_named_by_its_status(status: str, code: str) -> None:
    """Whoever canceled it has said no more."""
    entry = entry_of_job("a.png", JobRecord.from_json({"id": "1", "status": status, "error": None}))
    assert entry.code == code
    assert (entry.row["status"], entry.row["job_id"]) == (status, "1")
    assert entry.row["error"] == {"code": code, "detail": f"the job was {status}", "request_id": None}


def test_a_refusal_is_told_in_the_words_of_the_server() -> None:
    """Also where its code is younger than this client."""
    problem = Problem(code="TOO_BLUE", detail="Expected a pink tile.", request_id="r")
    entry = entry_of_refusal("a.png", HistoQueueError("It was refused.", problem))
    assert entry.code == "TOO_BLUE"
    assert entry.row["error"] == {"code": "TOO_BLUE", "detail": "Expected a pink tile.", "request_id": "r"}


@pytest.mark.parametrize(
    ("kind", "code"), [(Unavailable, "UNAVAILABLE"), (HistoQueueError, "HistoQueueError")]
)
def test_what_no_server_said_is_told_in_our_words(kind: type[HistoQueueError], code: str) -> None:
    """Such as a connection that broke."""
    entry = entry_of_refusal("a.png", kind("No answer."))
    assert entry.code == code
    assert entry.row["error"] == {"code": code, "detail": "No answer.", "request_id": None}
