"""How each system is asked over HTTP; every dialect sends one tile and returns its probabilities."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

#: A tile without an answer by then has failed.
PATIENCE_SECONDS = 60
#: Tiles in one request of ours that has many, and how long one waits for others.
PARCEL = 64
GATHER_SECONDS = 0.05
#: How often a batch is asked for what has ended, once most of the time is over that the last one took.
RESULTS_SECONDS = 0.1
#: How often an asynchronous peer is asked again; ours is not polled.
POLL_SECONDS = 0.02
SLOW_POLL_SECONDS = 0.2

Send = Callable[[int], Awaitable[list[float]]]
_Ask = Callable[[aiohttp.ClientSession, bytes], Awaitable[list[float]]]
_Open = Callable[[aiohttp.ClientSession, Sequence[bytes]], Send]


class NoAnswer(Exception):
    """The system said something else than an answer."""


@asynccontextmanager
async def open_dialect(name: str, url: str, tiles: Sequence[bytes]) -> AsyncIterator[Send]:
    """Give what sends the tile of a number to this system, over connections that are kept.

    Raises:
        KeyError: if there is no dialect of this name.
    """
    opened = DIALECTS[name]
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        yield opened(session, tiles)


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


class _Parcels:
    """Ours, as scripts with many tiles ask it: those due together go in one batch, which is polled."""

    def __init__(self, session: aiohttp.ClientSession, tiles: Sequence[bytes]) -> None:
        self._session, self._tiles = session, tiles
        self._due: list[tuple[int, asyncio.Future[list[float]]]] = []
        self._running: set[asyncio.Task[None]] = set()
        #: What the last batch took, from its acceptance on.
        self._usual_seconds = 0.0

    async def send(self, number: int) -> list[float]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[float]] = loop.create_future()
        self._due.append((number, answer))
        if len(self._due) == PARCEL:
            self._go()
        elif len(self._due) == 1:
            loop.call_later(GATHER_SECONDS, self._go)
        return await answer

    def _go(self) -> None:
        parcel, self._due = self._due, []
        if parcel:
            task = asyncio.create_task(self._settle(parcel))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _settle(self, parcel: Sequence[tuple[int, "asyncio.Future[list[float]]"]]) -> None:
        try:
            found = await self._batch([self._tiles[number] for number, _ in parcel])
            for place, (_, answer) in enumerate(parcel):
                answer.set_result(found[str(place)])
        except Exception as error:  # noqa: BLE001 - it is each tile's, and reported there
            for _, answer in parcel:
                if not answer.done():
                    answer.set_exception(error)

    async def _batch(self, tiles: Sequence[bytes]) -> dict[str, list[float]]:
        form = aiohttp.FormData()
        for place, tile in enumerate(tiles):
            form.add_field("file", tile, filename=str(place), content_type="image/jpeg")
        async with self._session.post("/batches", data=form) as answer:
            body = await answer.json()
            if answer.status != 202 or body["problems"]:
                raise NoAnswer(f"status {answer.status}: {str(body)[:150]}")
        began = time.perf_counter()
        await asyncio.sleep(0.8 * self._usual_seconds)
        found: dict[str, list[float]] = {}
        cursor = "0"
        while True:
            path = f"/batches/{body['id']}/results"
            async with self._session.get(path, params={"cursor": cursor}) as answer:
                for line in (await answer.text()).splitlines():
                    job = json.loads(line)
                    found[job["custom_id"]] = _job_probabilities(200, job)
                cursor = answer.headers["X-Next-Cursor"]
                if len(found) == len(tiles):
                    self._usual_seconds = time.perf_counter() - began
                    return found
            await asyncio.sleep(RESULTS_SECONDS)


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


def _each(ask: _Ask) -> _Open:
    """Every tile by itself."""
    return lambda session, tiles: lambda number: ask(session, tiles[number])


DIALECTS: dict[str, _Open] = {
    "held-back": _each(_held_back),
    "submitted": _each(_submitted),
    "batches": lambda session, tiles: _Parcels(session, tiles).send,
    "form": _each(_form),
    "raw": _each(_raw),
    "listed-form": _each(_listed_form),
    "textbook": _each(_textbook(POLL_SECONDS)),
    "textbook-slow": _each(_textbook(SLOW_POLL_SECONDS)),
    "bento-task": _each(_bento_task(POLL_SECONDS)),
    "bento-task-slow": _each(_bento_task(SLOW_POLL_SECONDS)),
}
