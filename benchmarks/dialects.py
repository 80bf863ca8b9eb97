"""How each system is asked over HTTP; every dialect sends one tile and returns its probabilities."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

#: A tile without an answer by then has failed.
PATIENCE_SECONDS = 60
#: How often an asynchronous peer is asked again; ours is not polled.
POLL_SECONDS = 0.02
SLOW_POLL_SECONDS = 0.2

Send = Callable[[int], Awaitable[list[float]]]
_Ask = Callable[[aiohttp.ClientSession, bytes], Awaitable[list[float]]]


class NoAnswer(Exception):
    """The system said something else than an answer."""


@asynccontextmanager
async def open_dialect(name: str, url: str, tiles: Sequence[bytes]) -> AsyncIterator[Send]:
    """Give what sends the tile of a number to this system, over connections that are kept.

    Raises:
        KeyError: if there is no dialect of this name.
    """
    ask = DIALECTS[name]
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        yield lambda number: ask(session, tiles[number])


async def _held_back(session: aiohttp.ClientSession, tile: bytes) -> list[float]:
    """Ours: one request that is held back until the job is final; the ledger and the queue are in between."""
    headers = {"Content-Type": "image/jpeg", "Prefer": "wait=30"}
    async with session.post("/predict", data=tile, headers=headers) as answer:
        body = await answer.json(content_type=None)
        if answer.status == 202:
            return await _fetched(session, answer.headers["Location"])
        return _job_probabilities(answer.status, body)


async def _submitted(session: aiohttp.ClientSession, tile: bytes) -> list[float]:
    """Ours, as a client that fetches later: submit, then a second request for the result."""
    async with session.post("/predict", data=tile, headers={"Content-Type": "image/jpeg"}) as answer:
        if answer.status != 202:
            raise NoAnswer(f"status {answer.status}")
        place = answer.headers["Location"]
        await answer.read()
    return await _fetched(session, place)


async def _fetched(session: aiohttp.ClientSession, place: str) -> list[float]:
    while True:
        async with session.get(place, params={"wait": "30"}) as answer:
            body = await answer.json(content_type=None)
            if answer.status != 202:
                return _job_probabilities(answer.status, body)


def _job_probabilities(status: int, job: dict[str, Any]) -> list[float]:
    result = job.get("result") if status == 200 else None
    if not result or not result.get("probabilities"):
        raise NoAnswer(f"status {status}: {str(job)[:150]}")
    return list(result["probabilities"].values())


async def _form(session: aiohttp.ClientSession, tile: bytes) -> list[float]:
    """A multipart form, answered at once with a list, or with an object that has one."""
    return await _posted(session, "/predict", data=_file("file", tile))


async def _raw(session: aiohttp.ClientSession, tile: bytes) -> list[float]:
    """The bare bytes, answered at once."""
    return await _posted(session, "/", data=tile)


async def _listed_form(session: aiohttp.ClientSession, tile: bytes) -> list[float]:
    """A form of a list with one file: a batch that the server merges with others."""
    return list((await _posted(session, "/predict", data=_file("images", tile)))[0])


async def _posted(session: aiohttp.ClientSession, path: str, data: Any) -> list[Any]:
    async with session.post(path, data=data) as answer:
        if answer.status != 200:
            raise NoAnswer(f"status {answer.status}: {(await answer.text())[:150]}")
        body = await answer.json(content_type=None)
        return list(body["probabilities"] if isinstance(body, dict) else body)


def _file(name: str, tile: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field(name, tile, filename="tile.jpeg", content_type="image/jpeg")
    return form


def _textbook(every_seconds: float) -> _Ask:
    async def ask(session: aiohttp.ClientSession, tile: bytes) -> list[float]:
        async with session.post("/predict", data=_file("file", tile)) as answer:
            task = (await answer.json())["id"]
        while True:
            async with session.get(f"/result/{task}") as answer:
                if answer.status == 200:
                    return list(await answer.json())
                if answer.status != 202:
                    raise NoAnswer(f"status {answer.status}")
            await asyncio.sleep(every_seconds)

    return ask


def _bento_task(every_seconds: float) -> _Ask:
    async def ask(session: aiohttp.ClientSession, tile: bytes) -> list[float]:
        async with session.post("/job/submit", data=_file("image", tile)) as answer:
            wanted = {"task_id": (await answer.json())["task_id"]}
        while True:
            async with session.get("/job/status", params=wanted) as answer:
                status = (await answer.json()).get("status")
            if status == "completed":
                async with session.get("/job/get", params=wanted) as answer:
                    return list(await answer.json())
            if status not in ("pending", "in_progress"):
                raise NoAnswer(f"task {status}")
            await asyncio.sleep(every_seconds)

    return ask


DIALECTS: dict[str, _Ask] = {
    "held-back": _held_back,
    "submitted": _submitted,
    "form": _form,
    "raw": _raw,
    "listed-form": _listed_form,
    "textbook": _textbook(POLL_SECONDS),
    "textbook-slow": _textbook(SLOW_POLL_SECONDS),
    "bento-task": _bento_task(POLL_SECONDS),
    "bento-task-slow": _bento_task(SLOW_POLL_SECONDS),
}
