"""Keep the programs of `make up` running until it is told to stop."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from ops.processes import Child, wait_until
from shared.errors import HistoQueueError, explain

#: From Ctrl-C to the end of the last child.
STOP_SECONDS = 14.0
#: The drain of the API and the worker; what is left of the above is for the servers.
DRAIN_SECONDS = 9.0
#: A child that ended is started again after this long, doubled each time up to the second value.
RESTART_AFTER_SECONDS = (0.5, 30.0)
#: A child that has run for this long is well again: its next end counts as the first.
WELL_AFTER_SECONDS = 60.0
#: Between two looks at how long the logs are.
LOGS_EVERY_SECONDS = 10.0


class Stop(Exception):
    """The operator wants it all to end."""


class CannotStart(Exception):
    """Said in one line, with what to do."""


@dataclass
class _Watched:
    child: Child
    restarts: int = 0
    started_at: float = field(default_factory=time.monotonic)
    start_again_at: float | None = None


class Supervisor:
    """Keeps children running until it is told to stop."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._held: tuple[int, ...] = ()
        self._watched: list[_Watched] = []
        self._stopping = False
        self._logs_seen_at = time.monotonic()

    def ask_to_stop(self, signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's form
        """Handle a signal: the next `look` raises Stop."""
        self._stopping = True

    def hold(self, descriptor: int) -> None:
        """Have every child hold this open, too: a lock then lasts until the last of them has ended."""
        self._held = (descriptor,)

    def start(self, child: Child) -> None:
        """Start a child and keep it running from now on."""
        child.start(self._held)
        self._watched.append(_Watched(child))
        self.say(f"  {child.name:<13} pid {child.pid:<8} log {child.log}")

    def look(self) -> None:
        """Start again what has ended, when its time has come.

        Raises:
            Stop: if a signal came.
        """
        if self._stopping:
            raise Stop
        self._look_at_logs()
        for watched in self._watched:
            if watched.child.is_running:
                continue
            if watched.start_again_at is None:
                self._plan_restart(watched)
            elif time.monotonic() >= watched.start_again_at:
                watched.started_at, watched.start_again_at = time.monotonic(), None
                try:
                    watched.child.start(self._held)
                except OSError as error:
                    # Such as no memory for it, or an end before it had read what it is told.
                    self.say(f"{watched.child.name} did not start: {error}")
                    continue
                self.say(f"{watched.child.name} runs again, pid {watched.child.pid}")

    def _look_at_logs(self) -> None:
        if time.monotonic() - self._logs_seen_at < LOGS_EVERY_SECONDS:
            return
        self._logs_seen_at = time.monotonic()
        for watched in self._watched:
            # On a full disk there is no room for what is to be kept; the programs go on without a log.
            with suppress(OSError):
                watched.child.bound_log()

    def _plan_restart(self, watched: _Watched) -> None:
        if time.monotonic() - watched.started_at > WELL_AFTER_SECONDS:
            watched.restarts = 0
        first, most = RESTART_AFTER_SECONDS
        delay = min(most, first * 2**watched.restarts)
        watched.restarts += 1
        watched.start_again_at = time.monotonic() + delay
        child = watched.child
        self.say(f"{child.name} ended with status {child.exit_code}; again in {delay:g} s. See {child.log}")

    def wait_for(self, what: str, check: Callable[[], bool], timeout_seconds: float) -> None:
        """Look after the children until `check` is true.

        Raises:
            CannotStart: if that does not come in time.
            Stop: if a signal came.
        """

        def checked() -> bool:
            self.look()
            return check()

        if not wait_until(checked, timeout_seconds, every_seconds=0.1):
            logs = ", ".join(str(watched.child.log) for watched in self._watched)
            raise CannotStart(f"{what} was not ready within {timeout_seconds:g} s. See {logs}")

    def wait_telling_why(
        self,
        what: str,
        ask: Callable[[], object],
        timeout_seconds: float,
        say_after_seconds: float,
    ) -> None:
        """Wait until `ask` raises nothing; what it does is said, meanwhile and at the end.

        Raises:
            CannotStart, Stop: as `wait_for`.
        """
        began, why, said = time.monotonic(), "", ""

        def answers() -> bool:
            nonlocal why, said
            try:
                ask()
            except HistoQueueError as error:
                why = explain(error)
                if why != said and time.monotonic() - began > say_after_seconds:
                    self.say(f"waiting for {what}: {why}")
                    said = why
                return False
            return True

        try:
            self.wait_for(what, answers, timeout_seconds)
        except CannotStart as late:
            raise CannotStart(f"{late}. Last: {why}") from None

    def stop(self) -> None:
        """End the children, the last started ones first, in time and whatever they do."""
        end = time.monotonic() + STOP_SECONDS
        drain_end = time.monotonic() + DRAIN_SECONDS
        children = [watched.child for watched in self._watched]
        # The API takes nothing more, the workers hand back what they have, while both servers still run.
        servers, clients = children[:-3], children[-3:]
        for group, limit in ((clients, drain_end), (servers, end)):
            for child in group:
                child.send(signal.SIGTERM)
            for child in group:
                child.reap(limit - time.monotonic())
