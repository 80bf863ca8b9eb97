"""The client for ordinary code: every call returns when it is done."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from . import _flows as flows
from ._bulk import Bulk, Summary
from ._connection import Connection, answer_of, no_answer
from ._errors import FOR_EVERY_IMAGE, HistoQueueError
from ._http import Answer, Flow, Pause, Request, Unanswered
from ._jobs import Job, Mapped
from ._pool import check_concurrency, run_over
from ._retry import Patience
from ._upload import Source, load

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._options import Options

T = TypeVar("T")


class Client:
    """A HistoQueue server. Safe to share between threads; close it, or use it in a `with` block.

    >>> with Client() as client:
    ...     job = client.submit("tile.png", wait=20)
    ...     print(job.status, job.result.class_name)
    succeeded lung_aca

    A call repeats what time may mend (no connection, a full queue, a store that is away) for
    `patience` seconds, as the server's `Retry-After` says; then it raises the last error.

    Args:
        base_url: where the server is; else `HISTOQUEUE_URL`, else http://127.0.0.1:5000.
        api_key: sent as a bearer token; else `HISTOQUEUE_API_KEY`.
        patience: seconds for which one call goes on asking.
        concurrency: how many connections may be open at once.
        transport: of httpx2, in place of the network.

    Raises:
        ValueError: if one of them is none that anything can be done with.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        patience: float = 60.0,
        concurrency: int = 64,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        check_concurrency(concurrency)
        self.connection = Connection.to(base_url, api_key)
        self.patience = Patience(patience)
        self._http = httpx2.Client(
            trust_env=self.connection.trust_env,
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        source: Source,
        *,
        wait: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """Submit one image: a path, bytes, or a file opened in binary mode.

        Without `wait` the job is returned as soon as it is accepted; with it, as soon as it has ended or the
        seconds are over. The request carries one idempotency key, made for this call unless given, so that
        repeating it never makes a second job.

        >>> with Client() as client, open("tile.png", "rb") as file:
        ...     job = client.submit(file, custom_id="block 7", mpp=0.5)
        ...     job.wait(timeout=20).record.custom_id
        'block 7'

        Raises:
            OSError: if the file cannot be read.
            HistoQueueError: if the request fails; a job that fails does not raise before `job.outcome()`.
        """
        return Job(self, self.run(flows.submit(load(source), options, wait, idempotency_key, self.patience)))

    def get(self, job: str) -> Job:
        """Return the job of this id or address.

        Raises:
            JobNotFound: if it was never issued.
            ResultExpired: if its result is past its retention.
        """
        return Job(self, self.run(flows.get(job, self.patience)))

    def map(
        self, sources: Iterable[Source], *, concurrency: int = 16, **options: Unpack[Options]
    ) -> Iterator[Mapped[Job]]:
        """Submit many images and yield each as its job ends, in whatever order; a bad one stops nothing.

        Only a few are in memory at a time, so `sources` may be endless. What would fail for every image (a
        server that is away for longer than `patience`; a wrong address, key or option) is raised.

        >>> with Client() as client:
        ...     for item in client.map(["tile.png", "no such file.png"], concurrency=1):
        ...         print(item.source, item.job.status if item.job else type(item.error).__name__)
        tile.png succeeded
        no such file.png FileNotFoundError
        """

        def one(source: Source) -> Mapped[Job]:
            try:
                return Mapped(source, self.submit(source, wait=flows.LONGEST_WAIT_SECONDS, **options).wait())
            except FOR_EVERY_IMAGE:
                raise
            except (HistoQueueError, OSError) as error:
                return Mapped(source, error=error)

        for mapped in run_over(one, sources, concurrency):
            assert mapped is not None  # noqa: S101 - None comes with a tick alone
            yield mapped

    def batch(
        self,
        folder: str | os.PathLike[str],
        out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        concurrency: int = 256,
        **options: Unpack[Options],
    ) -> Summary:
        """Submit every tile of a folder and write the results to files, as `histoqueue submit` does.

        A journal beside the first file remembers what is done: the same call goes on where it was stopped.
        What has left the folder since then keeps its row.

        >>> with Client() as client:
        ...     client.batch("tiles", out="results.csv").succeeded
        3

        Raises:
            ValueError: if the folder holds no tile, or a file cannot be written in that form or place.
            JournalError: if the journal is of a run with other options, or in use.
            Unavailable: if the server was away for longer than `patience`; the same call goes on.
            HistoQueueError: if no file could succeed, by the options or the key.
        """
        paths = [Path(out)] if isinstance(out, (str, os.PathLike)) else [Path(one) for one in out]
        return Bulk(self, [str(folder)], paths, dict(options), concurrency=concurrency).run()

    def models(self) -> Mapping[str, Any]:
        """Return what the server tells of its model versions.

        Raises:
            NotSupported: if it does not.
        """
        return self.run(flows.models(self.patience))

    def capacity(self) -> Mapping[str, Any]:
        """Return how much work is open and how fast it is done.

        Raises:
            NotSupported: if the server does not tell.
        """
        return self.run(flows.capacity(self.patience))

    def ready(self) -> Mapping[str, Any]:
        """Return the server's checks where a job that came now would be done.

        >>> with Client() as client:
        ...     client.ready()["status"]
        'ready'

        Raises:
            NotReady: with each reason.
        """
        return self.run(flows.ready(self.patience))

    def run(self, flow: Flow[T]) -> T:
        """Hold one conversation with the server, and return its outcome."""
        reply: Answer | Unanswered | None = None
        try:
            while True:
                step = flow.send(reply)
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    reply = None
                else:
                    reply = self._send(step)
        except StopIteration as end:
            outcome: T = end.value
            return outcome

    def _send(self, request: Request) -> Answer | Unanswered:
        try:
            return answer_of(self._http.request(**self.connection.arguments(request)))
        except httpx2.HTTPError as error:
            return no_answer(error)
