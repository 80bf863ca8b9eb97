"""A job in the hand: what is known of it, and what can be done with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from . import _flows as flows
from ._errors import HistoQueueError, JobCanceled, JobFailed, WaitTimedOut, error_for
from ._http import Flow
from ._models import JobRecord, Result
from ._problem import Problem
from ._upload import Source

if TYPE_CHECKING:
    from ._async_client import AsyncClient
    from ._client import Client


class JobView:
    """What both kinds of job tell; `record` holds all of it and is replaced by each call that asks."""

    def __init__(self, record: JobRecord) -> None:
        self.record = record

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def id(self) -> str:
        """128 random bits: whoever knows it can read the result."""
        return self.record.id

    @property
    def status(self) -> str:
        """One of queued, running, succeeded, failed, canceled, expired."""
        return self.record.status

    @property
    def is_final(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.record.is_final

    @property
    def result(self) -> Result | None:
        """The answer; None where there is none (yet)."""
        return self.record.result

    @property
    def error(self) -> Problem | None:
        """Why the job ended without a result."""
        return self.record.error

    def outcome(self) -> Result:
        """Return the result of a job that has ended.

        Raises:
            WaitTimedOut: if it has not ended.
            HistoQueueError: the class of its error, such as InvalidImage; JobCanceled if its owner ended it.
        """
        if self.record.result is not None:
            return self.record.result
        raise self.failure()

    def failure(self) -> HistoQueueError:
        """Return why there is no result, as an error that can be raised."""
        if not self.is_final:
            return WaitTimedOut(f"Expected job {self.id} to have ended. It is {self.status}.")
        if self.record.error is not None:
            return error_for(self.record.error)
        if self.status == "canceled":
            return JobCanceled(f"Job {self.id} was canceled.")
        return JobFailed(f"Job {self.id} ended as {self.status} and without a reason.")


class Job(JobView):
    """A job of a `Client`."""

    def __init__(self, client: Client, record: JobRecord) -> None:
        super().__init__(record)
        self._client = client

    def refresh(self) -> Job:
        """Ask how it stands; returns itself."""
        return self._take(flows.get(self.record, self._client.patience))

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until it has ended; returns itself.

        Raises:
            WaitTimedOut: if it has not after `timeout` seconds; None waits as long as it takes.
            ValueError: if `timeout` is no number.
        """
        return self._take(flows.wait_for(self.record, timeout, self._client.patience))

    def cancel(self) -> Job:
        """End it; returns itself.

        Raises:
            JobAlreadyFinal: if it had ended in another way.
        """
        return self._take(flows.cancel(self.record, self._client.patience))

    def retry(self) -> Job:
        """Run it again after it failed, expired or was canceled; returns itself.

        Raises:
            JobNotRetryable: if it has succeeded.
            ResultExpired: if its image is past its retention.
            NotSupported: if the server cannot.
        """
        return self._take(flows.retry(self.record, self._client.patience))

    def delete(self) -> None:
        """Cancel it, and delete its image and its result.

        Raises:
            NotSupported: if the server cannot.
        """
        self._client.run(flows.delete(self.record, self._client.patience))

    def heatmap(self) -> bytes:
        """Return its heat map as a PNG file.

        Raises:
            NotSupported: if it was not submitted with `explain=True`.
        """
        return self._client.run(flows.heatmap(self.record, self._client.patience))

    def _take(self, flow: Flow[JobRecord]) -> Job:
        self.record = self._client.run(flow)
        return self


class AsyncJob(JobView):
    """A job of an `AsyncClient`; the same calls as those of `Job`, awaited."""

    def __init__(self, client: AsyncClient, record: JobRecord) -> None:
        super().__init__(record)
        self._client = client

    async def refresh(self) -> AsyncJob:
        """Ask how it stands; returns itself."""
        return await self._take(flows.get(self.record, self._client.patience))

    async def wait(self, timeout: float | None = None) -> AsyncJob:
        """Wait until it has ended; see `Job.wait`."""
        return await self._take(flows.wait_for(self.record, timeout, self._client.patience))

    async def cancel(self) -> AsyncJob:
        """End it; see `Job.cancel`."""
        return await self._take(flows.cancel(self.record, self._client.patience))

    async def retry(self) -> AsyncJob:
        """Run it again; see `Job.retry`."""
        return await self._take(flows.retry(self.record, self._client.patience))

    async def delete(self) -> None:
        """Cancel it, and delete its image and its result; see `Job.delete`."""
        await self._client.run(flows.delete(self.record, self._client.patience))

    async def heatmap(self) -> bytes:
        """Return its heat map as a PNG file; see `Job.heatmap`."""
        return await self._client.run(flows.heatmap(self.record, self._client.patience))

    async def _take(self, flow: Flow[JobRecord]) -> AsyncJob:
        self.record = await self._client.run(flow)
        return self


AnyJob = TypeVar("AnyJob", Job, AsyncJob)


@dataclass(frozen=True)
class Mapped(Generic[AnyJob]):
    """One of the images given to `map`: either its job, which has ended, or why there is none."""

    source: Source
    job: AnyJob | None = None
    error: HistoQueueError | OSError | None = None
