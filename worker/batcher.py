"""Gather micro-batches while the engine is busy, and keep one bad image from harming the others."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from shared.errors import EngineFailed, HistoQueueError, Unavailable
from shared.schemas import ModelRef
from worker import metrics
from worker.supervisor import Outcome

#: How often an idle batcher looks whether its engine lives.
LOOK_EVERY_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class Draining(Unavailable):
    """The worker is shutting down and will not run this any more."""


class EngineUnusable(Unavailable):
    """No engine could be started that reproduces its golden tiles; no job is to blame."""


class Unwanted(Unavailable):
    """Nobody waits for this image any more: its job was canceled, or its lease was lost."""


class Engine(Protocol):
    """What the batcher needs of the supervisor."""

    @property
    def progressed_at(self) -> float:
        """When its last step began, by the monotonic clock; now while that has a limit of its own."""

    def ensure(self, model: ModelRef) -> None:
        """Have a proven engine with this model."""

    def run(
        self,
        model: ModelRef,
        images: Sequence[bytes],
        mpps: Sequence[float | None],
        explained: Sequence[bool],
        meanwhile: Callable[[], object],
    ) -> list[Outcome]:
        """Run one micro-batch; call `meanwhile` before there is something to wait for."""

    def revive(self) -> None:
        """Replace an engine that died while it had nothing to do."""


@dataclass
class _Item:
    image: bytes
    model: ModelRef
    alone: bool
    is_wanted: Callable[[], bool]
    mpp: float | None
    explain: bool
    future: Future[Outcome] = field(default_factory=Future)


class Batcher:
    """Many threads put images in; one thread feeds the engine.

    Work-conserving: when the engine is free it gets what waits, up to the largest micro-batch, and nothing
    waits for company. When an engine dies, each image that was in it runs again alone, on a second lane that
    takes turns with the first, so that those do not hold up the others.
    """

    def __init__(self, engine: Engine, max_batch_size: int) -> None:
        self._engine = engine
        self._max_batch_size = max_batch_size
        self._waiting: deque[_Item] = deque()
        self._loners: deque[_Item] = deque()
        self._arrived = threading.Condition()
        self._draining = threading.Event()
        self._busy_since: float | None = None
        self._loner_was_last = False
        self._untold: list[tuple[_Item, Outcome]] = []
        self._look_again_at = 0.0
        self._thread = threading.Thread(target=self._feed, name="batcher", daemon=True)

    def start(self) -> None:
        """Begin to feed the engine."""
        self._thread.start()

    def drain(self) -> None:
        """Finish the micro-batch that runs, refuse all others. Safe in a signal handler: takes no lock."""
        self._draining.set()

    @property
    def is_draining(self) -> bool:
        """Nothing that waits is run any more."""
        return self._draining.is_set()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the end of the draining, if it ever began to feed."""
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def submit(
        self,
        image: bytes,
        model: ModelRef,
        alone: bool,
        is_wanted: Callable[[], bool],
        mpp: float | None = None,
        explain: bool = False,
    ) -> Future[Outcome]:
        """Queue one image; `alone`: it shares the engine with no other; `mpp`: micrometres per pixel.

        One that is to be explained takes the time of fifty, so it goes alone too.

        The future raises EngineFailed if the image was alone in an engine that died while a fresh one is
        well, EngineUnusable if the image is not to blame, Draining, or Unwanted.
        """
        item = _Item(image, model, alone or explain, is_wanted, mpp, explain)
        with self._arrived:
            if self.is_draining:
                raise Draining("The worker is shutting down.")
            (self._loners if item.alone else self._waiting).append(item)
            self._arrived.notify()
        return item.future

    def is_stuck(self, limit_seconds: float) -> bool:
        """Tell whether one step of a micro-batch has been running for longer than it ever may."""
        busy_since = self._busy_since
        if busy_since is not None:
            busy_since = max(busy_since, self._engine.progressed_at)
        # One that has drained has ended well; the outcomes of its last micro-batch may still be on their way.
        has_died = not self._thread.is_alive() and not self.is_draining
        return has_died or (busy_since is not None and time.monotonic() - busy_since > limit_seconds)

    def _feed(self) -> None:
        while not self.is_draining:
            if batch := self._next_batch():
                self._busy_since = time.monotonic()
                self._run(batch)
                self._busy_since = None
            else:
                self._tell()
                self._look_after_the_engine()
                self._wait_for_images()
        self._tell()
        self._refuse_all()

    def _look_after_the_engine(self) -> None:
        """A worker without an engine is not ready, so perhaps no job would come that brings it back."""
        if time.monotonic() < self._look_again_at:
            return
        try:
            self._engine.revive()
        except Exception as error:  # noqa: BLE001 - a full disk, no GPU, a bug: the feeding thread must live
            _log.error("engine_not_revived", error=str(error), type=type(error).__name__)
        self._look_again_at = time.monotonic() + LOOK_EVERY_SECONDS

    def _next_batch(self) -> list[_Item]:
        with self._arrived:
            batch = self._take()
        wanted = [item for item in batch if item.is_wanted()]
        for item in batch:
            if item not in wanted:
                item.future.set_exception(Unwanted("The job was ended while it waited."))
        return wanted

    def _wait_for_images(self) -> None:
        with self._arrived:
            if not self._waiting and not self._loners:
                self._arrived.wait(0.2)  # wakes to see a drain that began in a signal handler

    def _take(self) -> list[_Item]:
        if self._loners and (self._loner_was_last is False or not self._waiting):
            self._loner_was_last = True
            return [self._loners.popleft()]
        self._loner_was_last = False
        batch: list[_Item] = []
        while self._waiting and len(batch) < self._max_batch_size:
            if batch and self._waiting[0].model != batch[0].model:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _outcomes(self, batch: list[_Item]) -> list[Outcome]:
        try:
            return self._engine.run(
                batch[0].model,
                [item.image for item in batch],
                [item.mpp for item in batch],
                [item.explain for item in batch],
                self._tell,
            )
        finally:
            # Where it fails before there is anything to wait for.
            self._tell()

    def _tell(self) -> None:
        """Pass on the last outcomes: the engine has its next images by then, or it would stand still."""
        untold, self._untold = self._untold, []
        for item, outcome in untold:
            item.future.set_result(outcome)

    def _run(self, batch: list[_Item]) -> None:
        model = batch[0].model
        metrics.BATCH_SIZE.observe(len(batch))
        try:
            outcomes = self._outcomes(batch)
        except EngineFailed as error:
            self._after_a_crash(batch, error)
        except HistoQueueError as error:
            _fail(batch, EngineUnusable(f"No engine for {model.name} {model.version}: {error}"))
        except Exception as error:  # noqa: BLE001 - logged whole
            # Whatever it is, the feeding thread must live: it is a bug of ours, and no job's fault.
            _log.exception("batch_failed", size=len(batch))
            _fail(batch, EngineUnusable(f"Unexpected: {type(error).__name__}"))
        else:
            self._untold = list(zip(batch, outcomes, strict=True))

    def _after_a_crash(self, batch: list[_Item], error: EngineFailed) -> None:
        """Run each member again alone; blame one that was alone, if a fresh engine is well without it."""
        _log.warning("engine_failed_in_batch", size=len(batch), error=str(error))
        if len(batch) > 1:
            with self._arrived:
                self._loners.extend(batch)
            return
        try:
            self._engine.ensure(batch[0].model)
        except Exception as broken:  # noqa: BLE001 - a full disk, no GPU, a bug: the feeding thread must live
            _log.error("engine_unusable", error=str(broken), type=type(broken).__name__)
            _fail(batch, EngineUnusable(str(broken)))
        else:
            _fail(batch, error)

    def _refuse_all(self) -> None:
        with self._arrived:
            left = [*self._waiting, *self._loners]
            self._waiting.clear()
            self._loners.clear()
        _fail(left, Draining("The worker is shutting down."))


def _fail(batch: list[_Item], error: Exception) -> None:
    for item in batch:
        item.future.set_exception(error)
