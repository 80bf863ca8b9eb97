"""An upload and the job behind it: what was sealed comes back, and anything else is refused."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shared.envelope import MOST_ADDED_BYTES, AcceptedJob, read_job, seal
from shared.schemas import Idempotency, NewJob
from tests.factories import jpeg_bytes, png_bytes, tiff_bytes
from tests.work import new_job


def accepted(custom_id: str | None = None) -> AcceptedJob:
    """Return a job with every option set."""
    repeat = Idempotency(key="k" * 64, fingerprint="f" * 64)
    job = new_job(mpp=0.5, idempotency=repeat, custom_id=custom_id, request_id="r" * 64)
    return AcceptedJob(job=job, accepted_at_ms=1_800_000_000_000)


@given(image=st.binary(max_size=100), custom_id=st.text(max_size=128))
def test_what_was_sealed_comes_back(image: bytes, custom_id: str) -> None:
    """Any image and any caller's words; the image stands first, unchanged."""
    job = accepted(custom_id)
    file = io.BytesIO(image)
    seal(file, job)
    assert file.tell() == 0
    upload = file.read()
    assert upload.startswith(image)
    assert len(upload) - len(image) <= MOST_ADDED_BYTES
    assert read_job(upload) == job


@pytest.mark.parametrize("image", [jpeg_bytes(), png_bytes(), tiff_bytes()])
def test_the_object_still_opens_as_an_image(image: bytes) -> None:
    """Whoever looks into the bucket sees pictures."""
    file = io.BytesIO(image)
    seal(file, accepted())
    with Image.open(file) as sealed, Image.open(io.BytesIO(image)) as plain:
        assert sealed.tobytes() == plain.tobytes()


@given(st.binary(max_size=60))
def test_bytes_that_hold_no_job_are_refused(upload: bytes) -> None:
    """Random bytes never raise anything else."""
    with pytest.raises(ValueError, match="Expected a job"):
        read_job(upload)


def test_a_job_of_another_version_is_refused() -> None:
    """A field that is not known, or a mark over something else, is no job of ours."""
    file = io.BytesIO(b"image")
    seal(file, accepted())
    changed = file.read().replace(b'"accepted_at_ms"', b'"accepted_at_mS"')
    with pytest.raises(ValueError, match="this version"):
        read_job(changed)


def test_a_job_that_would_not_fit_is_refused() -> None:
    """A worker reads so much behind an image and no more."""
    with pytest.raises(ValueError, match="16384"):
        seal(io.BytesIO(), accepted().model_copy(update={"job": too_large()}))


def too_large() -> NewJob:
    """Return a job with more words than any request may send."""
    job = accepted().job
    return job.model_copy(update={"spec": job.spec.model_copy(update={"request_id": "x" * MOST_ADDED_BYTES})})
