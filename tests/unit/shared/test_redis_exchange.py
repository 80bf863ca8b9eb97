"""Commands of several threads share an exchange, and nobody gets another one's answer."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from redis._parsers import Encoder

from shared.redis_exchange import MOST_SHARED, Command, Exchange


class Server:
    """Stands for Redis' client: answers each command with its words, when `let` says so."""

    def __init__(self) -> None:
        self.exchanges: list[list[str]] = []
        self.let: Callable[[], object] = lambda: None

    def get_encoder(self) -> Encoder:
        """Return what makes bytes of words."""
        return Encoder("utf-8", "strict", True)

    def pipeline(self, transaction: bool) -> "Pipeline":
        """Begin an exchange."""
        assert not transaction
        return Pipeline(self)


class Pipeline:
    """One exchange."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._commands: list[str] = []

    def execute_command(self, *command: bytes) -> None:
        """Add a command."""
        self._commands.append(b" ".join(command).decode())

    def execute(self, raise_on_error: bool) -> list[Any]:
        """Answer them all."""
        assert not raise_on_error
        self._server.exchanges.append(self._commands)
        self._server.let()
        if "unreadable" in self._commands:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text")
        return [redis.ResponseError("no") if command == "wrong" else command for command in self._commands]


@pytest.fixture
def server() -> Server:
    """A server that answers at once."""
    return Server()


def run_while_busy(server: Server, exchange: Exchange, then: Sequence[Sequence[Command]]) -> list[Any]:
    """Have commands come, in turn, while an exchange is under way; return what each of them got."""
    is_busy, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        is_busy.set()
        assert may_go.wait(10)

    server.let = hold

    def got(commands: Sequence[Command]) -> Any:
        try:
            return exchange.run(commands)
        except redis.RedisError as error:
            return error

    with ThreadPoolExecutor(len(then) + 1) as pool:
        first = pool.submit(got, [("first",)])
        assert is_busy.wait(10)
        others = []
        for number, commands in enumerate(then):
            others.append(pool.submit(got, commands))
            while len(exchange._waiting) <= number:
                time.sleep(0.001)
        may_go.set()
        return [first.result(10), *(other.result(10) for other in others)]


def test_a_lone_call_goes_at_once(server: Server) -> None:
    """Its commands, its answers, in order."""
    exchange = Exchange(server)  # type: ignore[arg-type]
    assert exchange.run([("GET", "a"), ("GET", "b")]) == ["GET a", "GET b"]
    assert exchange.run([("GET", "c")]) == ["GET c"]
    assert len(server.exchanges) == 2


def test_what_comes_meanwhile_goes_together_in_the_next(server: Server) -> None:
    """Two exchanges for five threads, and each gets what it asked for."""
    exchange = Exchange(server)  # type: ignore[arg-type]
    asked = [[("GET", str(number)), ("TTL", str(number))] for number in range(4)]
    assert run_while_busy(server, exchange, asked) == [
        ["first"],
        *([f"GET {number}", f"TTL {number}"] for number in range(4)),
    ]
    assert [len(commands) for commands in server.exchanges] == [1, 8]


def test_an_error_in_one_answer_is_that_answer(server: Server) -> None:
    """A command that Redis refuses harms nobody who travels with it."""
    exchange = Exchange(server)  # type: ignore[arg-type]
    _, wrong, right = run_while_busy(server, exchange, [[("wrong",)], [("right",)]])
    assert isinstance(wrong[0], redis.ResponseError)
    assert right == ["right"]


def test_an_answer_that_cannot_be_read_is_that_answer_alone(server: Server) -> None:
    """Not one of those who travel with it hears of it, nor does the rest of its own party."""
    exchange = Exchange(server)  # type: ignore[arg-type]
    asked = [[("GET", "a"), ("unreadable",), ("GET", "b")], [("GET", "c")]]
    _, mixed, right = run_while_busy(server, exchange, asked)
    assert (mixed[0], mixed[2]) == ("GET a", "GET b")
    assert isinstance(mixed[1], redis.RedisError)
    assert right == ["GET c"]


def test_very_many_commands_go_by_themselves(server: Server) -> None:
    """Beside the exchange that is under way, and in nobody's way."""
    exchange = Exchange(server)  # type: ignore[arg-type]
    is_busy, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        if server.exchanges[-1] == ["first"]:
            is_busy.set()
            assert may_go.wait(10)

    server.let = hold
    many = [("GET", str(number)) for number in range(MOST_SHARED + 1)]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(exchange.run, [("first",)])
        assert is_busy.wait(10)
        assert exchange.run(many) == [f"GET {number}" for number in range(MOST_SHARED + 1)]
        may_go.set()
        assert first.result(10) == ["first"]


@pytest.mark.parametrize(("word", "error"), [("\ud800", UnicodeEncodeError), (None, redis.DataError)])
def test_what_cannot_be_sent_is_its_senders_error_alone(
    server: Server, word: str, error: type[Exception]
) -> None:
    """Whatever a client has brought there; nobody waits with it, and the way stays free."""
    exchange = Exchange(server)  # type: ignore[arg-type]
    with pytest.raises(error):
        exchange.run([("SET", word)])
    assert server.exchanges == []
    assert exchange.run([("GET", "a")]) == ["GET a"]


def test_a_server_that_is_away_is_away_for_all_who_wait(server: Server) -> None:
    """They have waited long enough; what they wanted was never sent. Those who come later are served."""
    exchange = Exchange(server)  # type: ignore[arg-type]
    failure = redis.ConnectionError("away")
    is_busy, may_fail = threading.Event(), threading.Event()

    def fail() -> None:
        is_busy.set()
        assert may_fail.wait(10)
        raise failure

    server.let = fail
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(exchange.run, [("first",)])
        assert is_busy.wait(10)
        second = pool.submit(exchange.run, [("second",)])
        while not exchange._waiting:
            time.sleep(0.001)
        may_fail.set()
        assert first.exception(10) is failure
        assert second.exception(10) is failure
    assert server.exchanges == [["first"]]
    server.let = lambda: None
    assert exchange.run([("later",)]) == ["later"]


def test_whatever_goes_wrong_nobody_is_left_waiting(server: Server) -> None:
    """An end of the thread that leads, too."""
    exchange = Exchange(server)  # type: ignore[arg-type]

    def end() -> None:
        raise SystemExit

    server.let = end
    with pytest.raises(SystemExit):
        exchange.run([("first",)])
    server.let = lambda: None
    assert exchange.run([("later",)]) == ["later"]


def test_many_threads_get_their_own_answers(server: Server) -> None:
    """Nothing is lost or mixed up, and the way is free at the end."""
    exchange = Exchange(server)  # type: ignore[arg-type]
    server.let = lambda: time.sleep(0.0002)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: exchange.run([("GET", str(number))]), range(2000)))
    assert answers == [[f"GET {number}"] for number in range(2000)]
    assert len(server.exchanges) < 2000
    assert not exchange._is_under_way
