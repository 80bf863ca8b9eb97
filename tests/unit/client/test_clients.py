"""Both clients against the real API over services in memory."""

import asyncio
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Response
from histoqueue import (
    AsyncClient,
    Client,
    HistoQueueError,
    InvalidImage,
    InvalidRequest,
    JobAlreadyFinal,
    JobCanceled,
    JobFailed,
    JobNotFound,
    JobNotRetryable,
    JobRecord,
    NotSupported,
    ResultExpired,
    UnexpectedAnswer,
    UnsupportedImageFormat,
    WaitTimedOut,
)
from histoqueue import _flows as flows
from histoqueue._jobs import JobView

from tests.api_server import FAILING_WIDTH, HEATMAP, ApiServer
from tests.factories import png_bytes


@pytest.mark.parametrize("source", ["text", "path", "bytes", "file"])
def test_an_image_is_a_path_bytes_or_a_file(source: str, client: Client, tiles: Path) -> None:
    """Whatever the caller has at hand."""
    path = tiles / "x0_y0.png"
    sources: dict[str, Any] = {
        "text": str(path),
        "path": path,
        "bytes": path.read_bytes(),
        "file": io.BytesIO(path.read_bytes()),
    }
    job = client.submit(sources[source], wait=10)
    assert job.status == "succeeded"
    assert job.record.input is not None
    assert (job.record.input.width, job.record.input.media_type) == (64, "image/png")


def test_a_text_file_is_refused_here(client: Client) -> None:
    """A file opened as text would send something else than what is on the disk."""
    with pytest.raises(TypeError, match="binary"):
        client.submit(io.StringIO("tile"))  # type: ignore[arg-type]


def test_a_result_is_typed(client: Client, tiles: Path) -> None:
    """Every part of the answer has its name and its type, and the whole of it stays at hand."""
    job = client.submit(tiles / "x0_y0.png", wait=10, custom_id="block 7", mpp=0.5)
    result, record = job.outcome(), job.record
    assert (result.class_name, result.confidence, result.verdict, result.reasons) == (
        "lung_aca", 0.972, "classified", (),
    )  # fmt: skip
    assert result.probabilities["lung_scc"] == 0.017
    assert record.finished_at is not None
    assert record.created_at is not None
    assert record.finished_at >= record.created_at
    assert record.finished_at.utcoffset() is not None
    assert record.model is not None
    assert record.model.version == "1.0.0"
    assert record.custom_id == "block 7"
    assert record.timings_ms["fetch"] == 1
    assert record.raw["result"]["class"] == "lung_aca"


def test_a_job_is_waited_for(server: ApiServer, client: Client, tiles: Path) -> None:
    """Without a wait the job comes back as it was accepted, and can be looked at until it has ended."""
    server.is_working.clear()
    job = client.submit(tiles / "x0_y0.png")
    assert (job.status, job.is_final, job.result) == ("queued", False, None)
    with pytest.raises(WaitTimedOut):
        job.wait(timeout=0.1)
    with pytest.raises(WaitTimedOut):
        job.outcome()
    server.is_working.set()
    assert job.wait(timeout=10).status == "succeeded"
    assert client.get(job.id).refresh().result == job.result


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_job_that_stands_still_is_waited_for(
    kind: str, server: ApiServer, client: Client, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it does: that it is unchanged (304) is an answer, and no redirect or lost server."""
    statuses: list[int] = []

    def note(answer: Response) -> Response:
        statuses.append(answer.status_code)
        if statuses.count(304) == 4:
            server.is_working.set()
        return answer

    server.app.after_request(note)
    server.is_working.clear()
    monkeypatch.setattr(flows, "LONGEST_WAIT_SECONDS", 0.2)
    job = client.submit(tiles / "x0_y0.png")
    if kind == "sync":
        with Client(patience=0) as other:
            assert other.get(job.id).wait(timeout=20).status == "succeeded"
        return

    async def wait() -> str:
        async with AsyncClient(patience=0) as other:
            return (await (await other.get(job.id)).wait(timeout=20)).status

    assert asyncio.run(wait()) == "succeeded"
    assert statuses.count(304) >= 4


def test_a_failed_job_is_an_answer_until_its_outcome_is_wanted(client: Client) -> None:
    """Then it is the error of its code."""
    job = client.submit(png_bytes(width=FAILING_WIDTH), wait=10)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "INVALID_IMAGE"
    with pytest.raises(InvalidImage, match="breaks off"):
        job.outcome()


@pytest.mark.parametrize(("status", "kind"), [("expired", JobFailed), ("canceled", JobCanceled)])
def test_a_job_that_ended_without_a_word_has_an_outcome_of_its_own(
    status: str, kind: type[HistoQueueError]
) -> None:
    """The class of the error says which."""
    with pytest.raises(kind, match=status):
        JobView(JobRecord.from_json({"id": "1", "status": status})).outcome()


def test_a_job_can_be_canceled(server: ApiServer, client: Client) -> None:
    """And canceled again without harm; one that has ended otherwise cannot."""
    server.is_working.clear()
    job = client.submit(png_bytes()).cancel()
    assert job.status == "canceled"
    assert client.get(job.id).cancel().status == "canceled"
    with pytest.raises(JobCanceled):
        job.outcome()
    server.is_working.set()
    done = client.submit(png_bytes(), wait=10)
    with pytest.raises(JobAlreadyFinal):
        done.cancel()


def test_a_key_of_the_callers_own_gives_the_same_job(server: ApiServer, client: Client) -> None:
    """However often it is used."""
    first = client.submit(png_bytes(), idempotency_key="night run 7")
    assert client.submit(png_bytes(), idempotency_key="night run 7").id == first.id
    assert len(server.jobs) == 1


def test_what_the_server_refuses_is_its_own_error(client: Client) -> None:
    """Each with the server's words."""
    with pytest.raises(UnsupportedImageFormat, match="Expected a JPEG"):
        client.submit(b"<!doctype html>")
    with pytest.raises(InvalidRequest, match="mpp"):
        client.submit(png_bytes(), mpp=1000)
    with pytest.raises(JobNotFound):
        client.get("0192f0c4-5b1e-4c1b-9d43-2f6f0f6f8a11")


def test_a_deleted_job_leaves_nothing(client: Client) -> None:
    """Its id is known, and that is all; deleting it again does no harm."""
    job = client.submit(png_bytes(), wait=10)
    job.delete()
    job.delete()
    with pytest.raises(ResultExpired):
        job.refresh()


def test_a_failed_job_can_be_run_again(server: ApiServer, client: Client) -> None:
    """Under its id; asking twice does no harm, and one that succeeded is left alone."""
    job = client.submit(png_bytes(width=FAILING_WIDTH), wait=10)
    server.is_working.clear()
    assert job.retry().status == "queued"
    assert job.retry().status == "queued"
    server.is_working.set()
    assert job.wait(timeout=10).status == "failed"
    with pytest.raises(JobNotRetryable):
        client.submit(png_bytes(), wait=10).retry()


def test_the_server_tells_of_itself(client: Client) -> None:
    """Its model versions, and how much work is open."""
    assert client.models()["live"] == "1.0.0"
    assert client.capacity()["limit"] == 500


def test_a_heat_map_is_there_for_who_asked(client: Client) -> None:
    """Bytes of a PNG; without `explain` the error says what to ask for."""
    assert client.submit(png_bytes(), wait=10, explain=True).heatmap() == HEATMAP
    with pytest.raises(NotSupported, match="explain"):
        client.submit(png_bytes(), wait=10).heatmap()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"concurrency": 0}, "1 or more. Received: 0"),
        ({"concurrency": -3}, "1 or more. Received: -3"),
        ({"patience": -1.0}, "0 seconds or more. Received: -1"),
        ({"patience": math.nan}, "0 seconds or more. Received: nan"),
    ],
)
def test_a_client_that_could_never_do_anything_is_refused(
    kind: Callable[..., object], wrong: dict[str, Any], text: str
) -> None:
    """Its first call would wait for a connection that it may not have, or ask for ever."""
    with pytest.raises(ValueError, match=text):
        kind("http://127.0.0.1:9", **wrong)


def test_a_page_in_place_of_an_answer_is_neither_a_heat_map_nor_a_deletion(
    server: ApiServer, client: Client
) -> None:
    """It is a success of somebody else."""
    pages: list[Response] = []
    server.app.before_request(lambda: pages[0] if pages else None)
    job = client.submit(png_bytes(), wait=10, explain=True)
    pages.append(Response("<!doctype html>", content_type="text/html"))
    with pytest.raises(UnexpectedAnswer, match="Expected a PNG file"):
        job.heatmap()
    with pytest.raises(UnexpectedAnswer, match="status 204"):
        job.delete()
    assert server.jobs[0].result


def test_the_async_client_holds_the_same_conversations(server: ApiServer, bad_tiles: Path) -> None:
    """Each call of it, awaited."""

    async def everything() -> None:
        async with AsyncClient(patience=5) as client:
            job = await client.submit(bad_tiles / "x0_y0.png", wait=10)
            assert job.outcome().class_name == "lung_aca"
            assert (await (await client.get(job.id)).refresh()).id == job.id
            with pytest.raises(JobAlreadyFinal):
                await job.cancel()
            with pytest.raises(JobNotRetryable):
                await job.retry()
            with pytest.raises(NotSupported):
                await job.heatmap()
            assert ((await client.models())["live"], (await client.capacity())["limit"]) == ("1.0.0", 500)
            assert (await client.ready())["status"] == "ready"
            server.is_working.clear()
            waiting = await client.submit(png_bytes())
            with pytest.raises(WaitTimedOut):
                await waiting.wait(timeout=0.05)
            assert (await waiting.cancel()).status == "canceled"
            await waiting.delete()
            server.is_working.set()
            mapped = [item async for item in client.map(sorted(bad_tiles.iterdir()), concurrency=2)]
            assert sorted(item.job.status if item.job else "no job" for item in mapped) == [
                "failed", "no job", "no job", "succeeded", "succeeded", "succeeded",
            ]  # fmt: skip
            assert (await client.batch(bad_tiles, "async.csv")).succeeded == 3

    asyncio.run(everything())
