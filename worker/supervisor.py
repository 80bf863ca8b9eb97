"""The engine process as its parent sees it: started, watched, killed when it hangs, started again."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import structlog

from shared.errors import EngineCrashed, EngineFailed, EngineOutOfMemory, EngineTimedOut, InvalidModel
from shared.schemas import ModelRef
from worker.engine.pipe import pack
from worker.gpu import NO_GPU, NoGpu

#: One image's outcome, ready for the ledger: `{"result": …}` or `{"error": …}`, with its timings.
Outcome = dict[str, Any]
#: Importing TensorFlow, loading, warming up and the golden tiles, on a slow and busy machine.
START_TIMEOUT_SECONDS = 120.0
#: How long a version that has failed its proof is refused out of hand: each try ends an engine that is well.
REFUSED_SECONDS = 300.0
#: How often a busy engine's memory is looked at.
LOOK_EVERY_SECONDS = 0.1
#: So long after the last micro-batch the thread that looks ends.
REST_SECONDS = 1.0
#: What starts an engine; the pipe and the parent are added.
ENGINE_COMMAND = (sys.executable, "-m", "worker.engine")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """What the engine is told beside its model, and what it may take."""

    threads: int
    max_batch_size: int
    max_pixels: int
    #: Resident memory from which the engine is killed.
    memory_bytes: int
    runtime: str = "tensorflow"
    needs_gpu: bool = False
    #: Over 1, images are decoded while the model computes others.
    decode_threads: int = 1


class EngineSupervisor:
    """One engine process with one model version; used by one thread at a time.

    An engine that crashed or hung is dead when the error is raised; the next call starts a fresh one, and it
    must reproduce its golden tiles before it gets any work.
    """

    def __init__(
        self,
        fetch_model: Callable[[ModelRef], Path],
        options: EngineOptions,
        timeout_seconds: float,
        command: Sequence[str] = ENGINE_COMMAND,
    ) -> None:
        """`fetch_model` returns a folder of checked files; `timeout_seconds` bounds one micro-batch."""
        self._fetch_model = fetch_model
        self._options = options
        self._timeout = timeout_seconds
        self._command = list(command)
        self._watchdog = _Watchdog(options.memory_bytes)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[bytes, bytes] | None = None
        self._model: ModelRef | None = None
        self._progressed_at = 0.0
        self._is_fetching = False
        #: Versions that failed their proof: why, and until when they are not tried again.
        self._refused: dict[ModelRef, tuple[str, float]] = {}
        #: Versions that are not sound, by the last try or the last refusal: why, and until when that counts.
        self._unsound: dict[ModelRef, tuple[str, float]] = {}
        #: What `revive` brings back.
        self._last_proven: ModelRef | None = None

    @property
    def pid(self) -> int | None:
        """The engine's process id; None while there is none."""
        return self._process.pid if self._process else None

    @property
    def model(self) -> ModelRef | None:
        """The model that a living engine has loaded and proven; None while there is none."""
        return self._model if self._process and self._process.poll() is None else None

    @property
    def refused(self) -> dict[ModelRef, str]:
        """Versions that were wanted lately and are not sound, and why; safe in any thread.

        One that nobody has wanted for a while is left out: it may have been mended.
        """
        now = time.monotonic()
        return {model: why for model, (why, until) in self._unsound.copy().items() if now < until}

    @property
    def progressed_at(self) -> float:
        """When its last step began, by the monotonic clock: a start, or a micro-batch.

        While files are fetched it is now: each read has a limit of its own, and all of them may take long.
        """
        return time.monotonic() if self._is_fetching else self._progressed_at

    def ensure(self, model: ModelRef) -> None:
        """Have an engine with this model, golden tiles passed.

        Raises:
            InvalidModel: if the model is not what it should be.
            EngineFailed: if the engine could not be started.
            Unavailable: if the model's files are out of reach.
        """
        if self.model == model:
            return
        try:
            self._replace(model)
        except InvalidModel as error:
            if model not in self._unsound:
                _log.error("model_refused", model=model.name, version=model.version, error=str(error))
            self._unsound[model] = str(error), time.monotonic() + REFUSED_SECONDS
            raise
        self._unsound.pop(model, None)

    def _replace(self, model: ModelRef) -> None:
        started = time.monotonic()
        reason, until = self._refused.get(model, ("", 0.0))
        if started < until and self._last_proven not in (None, model):
            raise InvalidModel(reason)
        # First: a version that is damaged in the bucket must not cost the engine that is well.
        folder = self._fetched(model)
        self.stop()
        self._spawn()
        introduction = json.dumps({"folder": str(folder), **asdict(self._options)}).encode()
        answer = self._exchange([introduction], START_TIMEOUT_SECONDS)
        if "fatal" in answer:
            self.stop()
            reason = str(answer["fatal"]["detail"])
            if answer["fatal"]["code"] == NO_GPU:
                raise NoGpu(reason)
            self._refused[model] = (reason, time.monotonic() + REFUSED_SECONDS)
            raise InvalidModel(reason)
        self._model = self._last_proven = model
        seconds = round(time.monotonic() - started, 2)
        if warning := answer.get("warning"):
            _log.warning("engine_fell_back", wanted=self._options.runtime, reason=warning)
        facts = {"runtime": answer.get("runtime"), "pid": self.pid, "seconds": seconds}
        _log.info("engine_ready", model=model.name, version=model.version, **facts)

    def _fetched(self, model: ModelRef) -> Path:
        self._is_fetching = True
        try:
            return self._fetch_model(model)
        finally:
            self._progressed_at = time.monotonic()
            self._is_fetching = False

    def revive(self) -> None:
        """Replace an engine that died while it had nothing to do; raises as `ensure` does."""
        if self._last_proven is not None:
            self.ensure(self._last_proven)

    def run(
        self,
        model: ModelRef,
        images: Sequence[bytes],
        mpps: Sequence[float | None],
        explained: Sequence[bool],
        meanwhile: Callable[[], object] = lambda: None,
    ) -> list[Outcome]:
        """Run one micro-batch; one outcome an image, in order.

        `mpps` are the images' micrometres per pixel, where they are known; `explained` says which of them are
        to have a heat map.

        Raises:
            EngineCrashed: if the engine died.
            EngineTimedOut: if it gave no answer in time; it is dead now.
            InvalidModel, Unavailable: as `ensure`.
        """
        if self.model != model:
            # A start may take minutes.
            meanwhile()
            self.ensure(model)
        frames = pack(images, mpps, explained)
        outcomes: list[Outcome] = self._exchange(frames, self._timeout, meanwhile)["outcomes"]
        if len(outcomes) != len(images):
            self.stop()
            raise EngineCrashed(f"Expected {len(images)} outcomes of the engine. Received: {len(outcomes)}")
        return outcomes

    def stop(self) -> None:
        """End the engine, whatever it does."""
        self._model = None
        if self._connection:
            self._connection.close()
            self._connection = None
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _spawn(self) -> None:
        ours, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                [*self._command, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._connection = ours

    def _exchange(
        self,
        frames: Sequence[bytes],
        timeout_seconds: float,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> dict[str, Any]:
        """Send and receive; a watchdog kills an engine that takes too long, or too much memory."""
        connection, process = self._connection, self._process
        if connection is None or process is None:
            raise EngineCrashed("The engine is not running.")
        self._progressed_at = time.monotonic()
        self._watchdog.start(process, timeout_seconds)
        try:
            for frame in frames:
                connection.send_bytes(frame)
            meanwhile()
            answer: dict[str, Any] = json.loads(connection.recv_bytes())
        except (EOFError, OSError, ValueError) as error:
            raise self._post_mortem(self._watchdog.verdict) from error
        finally:
            self._watchdog.stop()
        return answer

    def _post_mortem(self, verdict: EngineFailed | None) -> EngineFailed:
        """Bury the engine; return what it died of."""
        process = self._process
        pid = self.pid
        exit_code: int | None = None
        if process:
            # Its pipe is broken, so it is ending; what it ends with is worth a moment.
            with suppress(subprocess.TimeoutExpired):
                exit_code = process.wait(1)
        self.stop()
        cause = verdict or EngineCrashed(f"The engine died with exit status {exit_code}.")
        _log.warning("engine_died", pid=pid, cause=type(cause).__name__, exit_code=exit_code)
        return cause


class _Watchdog:
    """Watches the engine for as long as it owes an answer; a thread for each micro-batch would cost more."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory = memory_bytes
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._has_nothing_to_watch = False
        self._process: subprocess.Popen[bytes] | None = None
        self._timeout = 0.0
        self._until = 0.0
        #: Why it killed the engine; None if it did not.
        self.verdict: EngineFailed | None = None

    def start(self, process: "subprocess.Popen[bytes]", timeout_seconds: float) -> None:
        """Begin to watch."""
        with self._changed:
            self.verdict, self._process = None, process
            self._timeout, self._until = timeout_seconds, time.monotonic() + timeout_seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="engine-watchdog", daemon=True)
                self._thread.start()
            elif self._has_nothing_to_watch:
                self._changed.notify()

    def stop(self) -> None:
        """The answer came, or nobody waits for it any more; the engine is not killed after this."""
        with self._changed:
            self._process = None

    def _watch(self) -> None:
        with self._changed:
            try:
                while self._is_needed():
                    left = self._until - time.monotonic()
                    self._changed.wait(max(0.0, min(LOOK_EVERY_SECONDS, left)))
                    if self._process:
                        self._look_at(self._process)
            finally:
                self._thread = None

    def _is_needed(self) -> bool:
        self._has_nothing_to_watch = True
        is_needed = self._changed.wait_for(lambda: self._process is not None, REST_SECONDS)
        self._has_nothing_to_watch = False
        return is_needed

    def _look_at(self, process: "subprocess.Popen[bytes]") -> None:
        if time.monotonic() >= self._until:
            self.verdict = EngineTimedOut(
                f"The engine gave no answer within {self._timeout:g} s and was ended."
            )
        elif (resident := _resident_bytes(process.pid)) > self._memory:
            self.verdict = EngineOutOfMemory(
                f"The engine took {resident} bytes of memory, may have {self._memory}, and was ended."
            )
        if self.verdict:
            process.kill()
            self._process = None


def _resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 where that cannot be read."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
