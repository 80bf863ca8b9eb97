"""Commands of many threads on their way to Redis together.

A thread whose commands find the way free sends them at once. Those that come while an exchange is under way
wait for its end and go in the next one, all of them: under load fewer messages pass, and a server that writes
each on the disk before it answers does so once for all of them.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import redis

Command = Sequence[str | float]
#: More commands than this, as of a batch, take a connection of their own: nobody's single one waits for them.
MOST_SHARED = 32


class Exchange:
    """At most one exchange at a time that is shared, over connections of the client's pool."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._encode: Callable[[str | float], bytes] = client.get_encoder().encode
        self._lock = threading.Lock()
        self._waiting: list[_Party] = []
        self._is_under_way = False

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers in order; one of them may be an error of Redis.

        Raises:
            RedisError: if it did not answer; what waited meanwhile was not sent, and gets the same error.
            DataError, UnicodeEncodeError: if a word of the commands cannot be sent.
        """
        # Here and not in the exchange: what cannot be sent is to be its sender's error alone.
        party = _Party([[self._encode(word) for word in command] for command in commands])
        if len(commands) > MOST_SHARED:
            self._send([party])
            return party.answers
        with self._lock:
            self._waiting.append(party)
            leads, self._is_under_way = not self._is_under_way, True
        if leads or party.waits_to_lead():
            self._lead()
        if party.error is not None:
            raise party.error
        return party.answers

    def _lead(self) -> None:
        with self._lock:
            parties, self._waiting = self._waiting, []
        try:
            self._send(parties)
        except BaseException as error:  # noqa: BLE001 - raised by each of them
            with self._lock:
                # They have waited as long as anybody should for a server that is away.
                parties, self._waiting = [*parties, *self._waiting], []
            for party in parties:
                party.error = error
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._is_under_way = following is not None
            if following:
                following.call(leads=True)
            for party in parties:
                party.call(leads=False)

    def _send(self, parties: Sequence["_Party"]) -> None:
        commands = [command for party in parties for command in party.commands]
        try:
            answers = iter(self._answers(commands))
        except redis.RedisError:
            raise
        except Exception:  # noqa: BLE001 - the one that it is about gets it
            # One that cannot be read takes the rest of its exchange with it, and every command is safe twice.
            answers = iter([self._answer(command) for command in commands])
        for party in parties:
            party.answers = [next(answers) for _ in party.commands]

    def _answers(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        return pipe.execute(raise_on_error=False)

    def _answer(self, command: Sequence[bytes]) -> Any:
        try:
            return self._answers([command])[0]
        except redis.RedisError:
            raise
        except Exception as error:  # noqa: BLE001 - an answer among others
            return redis.InvalidResponse(f"The answer cannot be read: {error}")


class _Party:
    """One thread's commands, and what became of them."""

    def __init__(self, commands: Sequence[Sequence[bytes]]) -> None:
        self.commands = commands
        self.answers: list[Any] = []
        self.error: BaseException | None = None
        self._leads = False
        self._called = threading.Lock()
        self._called.acquire()

    def waits_to_lead(self) -> bool:
        """Wait for the answers, or for the turn to lead the next exchange: True."""
        self._called.acquire()
        return self._leads

    def call(self, leads: bool) -> None:
        """End the wait."""
        self._leads = leads
        self._called.release()
