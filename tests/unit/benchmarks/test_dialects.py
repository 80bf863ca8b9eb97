import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
from aiohttp import web

from benchmarks.dialects import PARCEL, NoAnswer, Send, open_dialect

Value = TypeVar("Value")
#: More than two whole batches of them.
TILES = [bytes([number]) for number in range(2 * PARCEL + 3)]


class Batches:
    """A server that answers a tile with its own byte, in pages of at most so many ends."""

    def __init__(self, page: int, failing: int | None = None) -> None:
        self.page, self.failing = page, failing
        self.batches: list[list[tuple[str, bytes]]] = []

    async def submit(self, request: web.Request) -> web.Response:
        """Keep the parts by name; the ends are told in another order."""
        reader = await request.multipart()
        parts = [(str(part.filename), bytes(await part.read())) async for part in reader]  # type: ignore[union-attr]
        self.batches.append(parts[::-1])
        return web.json_response({"id": len(self.batches) - 1, "problems": []}, status=202)

    async def results(self, request: web.Request) -> web.Response:
        """Tell what has ended since the cursor."""
        ends, start = self.batches[int(request.match_info["id"])], int(request.query["cursor"])
        lines = [json.dumps(self._job(name, body)) for name, body in ends[start : start + self.page]]
        following = str(start + len(lines))
        return web.Response(text="\n".join(lines), headers={"X-Next-Cursor": following})

    def _job(self, name: str, body: bytes) -> dict[str, object]:
        if body[0] == self.failing:
            return {"custom_id": name, "status": "failed", "result": None}
        return {"custom_id": name, "status": "succeeded", "result": {"probabilities": {"a": body[0]}}}

    @asynccontextmanager
    async def asked(self):  # type: ignore[no-untyped-def]
        """Serve on a free port; give what sends a tile."""
        app = web.Application()
        app.add_routes([web.post("/batches", self.submit), web.get("/batches/{id}/results", self.results)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with open_dialect("batches", f"http://127.0.0.1:{port}", TILES) as send:
                yield send
        finally:
            await runner.cleanup()


def asking(server: Batches, scenario: Callable[[Send], Awaitable[Value]]) -> Value:
    async def run() -> Value:
        async with server.asked() as send:
            return await scenario(send)

    return asyncio.run(run())


@pytest.mark.parametrize("page", [PARCEL, 10])
def test_tiles_that_are_due_together_go_in_batches_and_each_gets_its_own_answer(page: int) -> None:
    """Whole batches at once, the rest a moment later; the order and the pages of the results say nothing."""
    server = Batches(page)
    answers = asking(server, lambda send: asyncio.gather(*map(send, range(len(TILES)))))
    assert answers == [[float(body[0])] for body in TILES]
    assert sorted(map(len, server.batches)) == [3, PARCEL, PARCEL]


def test_a_batch_with_a_failed_tile_answers_none_of_its_clients() -> None:
    """A load in which something failed is not sound, so it need not be told which one."""
    server = Batches(PARCEL, failing=TILES[5][0])

    async def scenario(send: Send) -> list[object]:
        return await asyncio.gather(*map(send, range(PARCEL)), return_exceptions=True)

    assert {type(answer) for answer in asking(server, scenario)} == {NoAnswer}
