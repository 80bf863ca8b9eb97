"""The client for code with an event loop; it holds the same conversations as `Client`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from . import _flows as flows
from ._bulk import Summary
from ._client import Client
from ._connection import Connection, answer_of, no_answer
from ._errors import FOR_EVERY_IMAGE, HistoQueueError
from ._http import Answer, Flow, Pause, Request, Unanswered
from ._jobs import AsyncJob, Mapped
from ._pool import check_concurrency
from ._retry import Patience
from ._upload import Source, load

if TYPE_CHECKING:
    import os

    from typing_extensions import Self, Unpack

    from ._options import Options

T = TypeVar("T")


class AsyncClient:
    """A HistoQueue server, for one event loop; the arguments and errors are those of `Client`.

    >>> import asyncio
    >>> async def classify(path):
    ...     async with AsyncClient() as client:
    ...         job = await client.submit(path)
    ...         await job.wait(timeout=20)
    ...         return job.outcome().class_name
    >>> asyncio.run(classify("tile.png"))
    'lung_aca'
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        patience: float = 60.0,
        concurrency: int = 64,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        check_concurrency(concurrency)
        self.connection = Connection.to(base_url, api_key)
        self.patience = Patience(patience)
        self._http = httpx2.AsyncClient(
            trust_env=self.connection.trust_env,
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(
        self,
        source: Source,
        *,
        wait: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> AsyncJob:
        """Submit one image; see `Client.submit`. A file is read in a thread."""
        upload = await asyncio.get_running_loop().run_in_executor(None, load, source)
        flow = flows.submit(upload, options, wait, idempotency_key, self.patience)
        return AsyncJob(self, await self.run(flow))

    async def get(self, job: str) -> AsyncJob:
        """Return the job of this id or address; see `Client.get`."""
        return AsyncJob(self, await self.run(flows.get(job, self.patience)))

    async def map(
        self, sources: Iterable[Source], *, concurrency: int = 16, **options: Unpack[Options]
    ) -> AsyncIterator[Mapped[AsyncJob]]:
        """Submit many images and yield each as its job ends, in whatever order; see `Client.map`."""
        check_concurrency(concurrency)
        waiting, running = iter(sources), set[asyncio.Task[Mapped[AsyncJob]]]()
        done = set[asyncio.Task[Mapped[AsyncJob]]]()
        try:
            while True:
                for source in waiting:
                    running.add(asyncio.ensure_future(self._map_one(source, options)))
                    if len(running) >= concurrency:
                        break
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            # An error that nobody looks at would be reported when its task is dropped.
            await asyncio.gather(*running, *done, return_exceptions=True)

    async def _map_one(self, source: Source, options: Options) -> Mapped[AsyncJob]:
        try:
            job = await self.submit(source, wait=flows.LONGEST_WAIT_SECONDS, **options)
            return Mapped(source, await job.wait())
        except FOR_EVERY_IMAGE:
            raise
        except (HistoQueueError, OSError) as error:
            return Mapped(source, error=error)

    async def batch(
        self,
        folder: str | os.PathLike[str],
        out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        concurrency: int = 256,
        **options: Unpack[Options],
    ) -> Summary:
        """Submit every tile of a folder and write the results to files; see `Client.batch`.

        The work is done by a `Client` of its own, in a thread; cancelling does not stop it.
        """

        def work() -> Summary:
            with Client(self.connection.base_url, patience=self.patience.seconds) as client:
                client.connection = self.connection
                return client.batch(folder, out, concurrency=concurrency, **options)

        return await asyncio.get_running_loop().run_in_executor(None, work)

    async def models(self) -> Mapping[str, Any]:
        """Return what the server tells of its model versions; see `Client.models`."""
        return await self.run(flows.models(self.patience))

    async def capacity(self) -> Mapping[str, Any]:
        """Return how much work is open and how fast it is done; see `Client.capacity`."""
        return await self.run(flows.capacity(self.patience))

    async def ready(self) -> Mapping[str, Any]:
        """Return the server's checks where a job that came now would be done; see `Client.ready`."""
        return await self.run(flows.ready(self.patience))

    async def run(self, flow: Flow[T]) -> T:
        """Hold one conversation with the server, and return its outcome."""
        reply: Answer | Unanswered | None = None
        try:
            while True:
                step = flow.send(reply)
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    reply = None
                else:
                    reply = await self._send(step)
        except StopIteration as end:
            outcome: T = end.value
            return outcome

    async def _send(self, request: Request) -> Answer | Unanswered:
        try:
            return answer_of(await self._http.request(**self.connection.arguments(request)))
        except httpx2.HTTPError as error:
            return no_answer(error)
