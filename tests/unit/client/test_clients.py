"""Both clients against the real API over services in memory."""

import asyncio
import gc
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from flask import Response, request
from histoqueue import (
    AccessDenied,
    AsyncClient,
    Client,
    InvalidImage,
    InvalidRequest,
    JobAlreadyFinal,
    JobCanceled,
    JobNotFound,
    JobNotRetryable,
    NotSupported,
    ResultExpired,
    RouteNotFound,
    ServerUnreachable,
    UnexpectedAnswer,
    UnknownModelVersion,
    UnsupportedImageFormat,
    WaitTimedOut,
    WebhooksOff,
)
from histoqueue import _flows as flows
from histoqueue._connection import Connection

from tests.api_server import FAILING_WIDTH, HEATMAP, ApiServer
from tests.factories import png_bytes
from tests.tls import TlsFront, make_certificates


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


def test_map_yields_each_image_with_its_job_or_its_error(client: Client, bad_tiles: Path) -> None:
    """In whatever order; one that is bad stops nothing."""
    items = list(client.map(sorted(bad_tiles.iterdir()), concurrency=3))
    outcomes = {
        Path(str(item.source)).name: item.job.status if item.job else type(item.error).__name__
        for item in items
    }
    assert outcomes == {
        "x0_y0.png": "succeeded",
        "x64_y48.png": "succeeded",
        "x128_y96.png": "succeeded",
        "broken.png": "failed",
        "page.png": "UnsupportedImageFormat",
        "gone.png": "FileNotFoundError",
    }


def test_map_takes_only_a_few_at_a_time(client: Client) -> None:
    """The sources may be endless."""
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield png_bytes()

    mapped = client.map(endless(), concurrency=2)
    assert [next(mapped).job is not None for _ in range(5)] == [True] * 5
    mapped.close()  # type: ignore[attr-defined]
    assert taken < 12


def test_a_server_that_is_away_ends_a_map(tiles: Path) -> None:
    """It would fail for every image."""
    with Client("http://127.0.0.1:9", patience=0) as client, pytest.raises(ServerUnreachable):
        list(client.map([tiles / "x0_y0.png"] * 50))


@pytest.fixture(params=["sync", "async"])
def map_all(request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
    """Return what gives some images to the `map` of either client, and returns all that comes."""

    def in_order(sources: list[Path], base_url: str | None = None, **options: Any) -> list[Any]:
        with Client(base_url, patience=0) as client:
            return list(client.map(sources, **options))

    def awaited(sources: list[Path], base_url: str | None = None, **options: Any) -> list[Any]:
        async def collect() -> list[Any]:
            async with AsyncClient(base_url, patience=0) as client:
                return [item async for item in client.map(sources, **options)]

        return asyncio.run(collect())

    return in_order if request.param == "sync" else awaited


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"mpp": 99}, InvalidRequest),
        ({"model_version": "9.9.9"}, UnknownModelVersion),
        ({"webhook_url": "https://lab.example/hook"}, WebhooksOff),
    ],
)
def test_what_is_wrong_for_every_image_ends_a_map(
    options: dict[str, Any], kind: type[Exception], map_all: Any, server: ApiServer, tiles: Path
) -> None:
    """No image is to blame; of sixty, sixty would be refused."""
    asked: list[str] = []
    server.app.before_request(lambda: asked.append(request.path))
    with pytest.raises(kind):
        map_all([tiles / "x0_y0.png"] * 60, **options)
    assert len(asked) < 60


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_ends_a_map(status: int, map_all: Any, server: ApiServer, tiles: Path) -> None:
    """Whatever words it is refused in."""
    server.app.before_request(lambda: Response("no", status=status))
    with pytest.raises(AccessDenied):
        map_all([tiles / "x0_y0.png"] * 60)


@pytest.mark.parametrize("answer", [("/api", None), ("", "<html>404")], ids=["wrong path", "wrong server"])
def test_an_address_of_something_else_ends_a_map(
    answer: tuple[str, str | None], map_all: Any, server: ApiServer, tiles: Path
) -> None:
    """Of another path, or of another service altogether."""
    path, page = answer
    server.app.before_request(lambda: Response(page, status=404) if page else None)
    with pytest.raises(RouteNotFound):
        map_all([tiles / "x0_y0.png"] * 60, server.url + path)


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


@pytest.mark.parametrize("number", [0, -1])
def test_an_async_map_of_nothing_at_once_is_refused(number: int) -> None:
    """As the other client's is."""

    async def classify() -> None:
        async with AsyncClient("http://127.0.0.1:9", patience=0) as client:
            async for _ in client.map([b"tile"], concurrency=number):
                pass

    with pytest.raises(ValueError, match=f"1 or more. Received: {number}"):
        asyncio.run(classify())


def test_a_page_in_place_of_the_server_ends_a_map(map_all: Any, server: ApiServer, tiles: Path) -> None:
    """The login page of a network, say: no image is to blame, and every other one would meet it too."""
    page = b"<!doctype html><title>Hotel network</title>"
    server.app.before_request(lambda: Response(page, content_type="text/html"))
    with pytest.raises(UnexpectedAnswer, match=r"status 200, text/html, .*Hotel network"):
        map_all([tiles / "x0_y0.png"] * 60)


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


def test_an_async_map_that_ends_leaves_no_errors_behind(
    server: ApiServer, tiles: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of sixteen that fail together one is raised; the loop has nothing to say of the others."""
    server.app.before_request(lambda: Response("no", status=401))

    async def classify() -> None:
        async with AsyncClient() as client:
            with pytest.raises(AccessDenied):
                async for _ in client.map([tiles / "x0_y0.png"] * 16):
                    pass

    asyncio.run(classify())
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_a_fault_that_may_be_due_to_an_image_is_its_own(map_all: Any, server: ApiServer, tiles: Path) -> None:
    """The others of a map are answered."""
    bad = tiles / "x0_y0.png"
    fault = {"code": "INTERNAL", "status": 500, "retryable": True}

    def fail() -> Response | None:
        if request.content_length != bad.stat().st_size:
            return None
        return Response(json.dumps(fault), status=500, content_type="application/problem+json")

    server.app.before_request(fail)
    found = map_all([bad, *[tiles / "x64_y48.png"] * 3])
    assert Counter(type(item.error).__name__ for item in found) == {"InternalFault": 1, "NoneType": 3}


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


def test_the_api_key_goes_to_its_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a bearer token; a link to another host is not followed."""
    asked: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        job = {"id": "a1", "status": "queued", "links": {"self": "//elsewhere.example/result/a1"}}
        return httpx2.Response(202, content=json.dumps(job))

    monkeypatch.setenv("HISTOQUEUE_API_KEY", "secret")
    with Client("http://lab.example/hq", transport=httpx2.MockTransport(respond), patience=0) as client:
        job = client.submit(b"\xff\xd8\xff")
        with pytest.raises(UnexpectedAnswer, match="Expected a link"):
            job.refresh()
    assert str(asked[0].url) == "http://lab.example/hq/predict"
    assert asked[0].headers["Authorization"] == "Bearer secret"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "times", "advice"),
    [
        (301, 1, "https://lab/in; use that as its address"),
        (308, 1, "https://lab/in; use that as its address"),
        (302, 2, "https://lab/in, as a network or a proxy does that wants a login"),
    ],
)
def test_a_redirect_is_explained(status: int, times: int, advice: str) -> None:
    """It is not followed: it might lead a key, or an image, elsewhere. One for a while is waited for.

    What a login page is told in its address is not shown.
    """
    asked = []

    def move(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(status, headers={"Location": "https://lab/in?state=secret#x"})

    client = Client("http://lab", transport=httpx2.MockTransport(move), patience=1)
    with client, pytest.raises(ServerUnreachable, match=f"redirects to {advice}"):
        client.submit(b"\xff\xd8\xff")
    assert min(len(asked), 2) == times


def test_a_certificate_that_is_not_trusted_is_told_at_once(server: ApiServer, tmp_path: Path) -> None:
    """Time mends none."""
    front, began = TlsFront(make_certificates(tmp_path / "tls"), server.port), time.monotonic()
    try:
        with (
            Client(f"https://127.0.0.1:{front.port}", patience=20) as client,
            pytest.raises(ServerUnreachable, match="certificate verify failed"),
        ):
            client.submit(png_bytes())
    finally:
        front.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "url",
    ["lab:5000", "ftp://lab", "http://", "127.0.0.1", "http://lab:port", "http://la\nb\x7f", "http://[::1"],
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match="Expected an address"):
        Client(url)


def test_what_surrounds_a_key_or_an_address_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or a clipboard adds a line's end."""
    monkeypatch.setenv("HISTOQUEUE_API_KEY", " secret\n")
    monkeypatch.setenv("HISTOQUEUE_URL", " http://lab/\n")
    connection = Connection.to(None, None)
    assert connection.headers["Authorization"] == "Bearer secret"
    assert connection.base_url == "http://lab"
    assert Connection.to(None, "other\r\n").headers["Authorization"] == "Bearer other"
    monkeypatch.setenv("HISTOQUEUE_API_KEY", " \n")
    assert "Authorization" not in Connection.to(None, None).headers


@pytest.mark.parametrize("key", ["sec\nret", "sec\x00ret", "s\xe9cret", "secret\u2019"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str) -> None:
    """What is said may end up in a log."""
    with pytest.raises(ValueError, match="Expected an API key") as caught:
        Client("http://lab", api_key=key)
    assert key[-3:] not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_connection_does_not_show_its_key() -> None:
    """Nor does whatever prints it."""
    assert "secret" not in repr(Connection.to("http://me:secret@lab", "secret"))
