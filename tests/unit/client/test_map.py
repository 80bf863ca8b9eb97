"""Many images through either client's `map`: what ends it, and what concerns one image alone."""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Response, request
from histoqueue import (
    AccessDenied,
    AsyncClient,
    Client,
    InvalidRequest,
    RouteNotFound,
    ServerUnreachable,
    UnexpectedAnswer,
    UnknownModelVersion,
    WebhooksOff,
)

from tests.api_server import ApiServer
from tests.factories import png_bytes


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
