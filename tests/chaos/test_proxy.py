"""The proxy does what its words say: otherwise a fault that was survived was none."""

import contextlib
import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ops.processes import wait_until
from ops.servers import HOST
from tests.chaos.proxy import Proxy

#: Long enough for a byte that is to come, on a busy machine.
PATIENCE_SECONDS = 10.0
#: How long silence is listened to.
SILENCE_SECONDS = 0.3


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that answers each byte with itself."""
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=serve_echo, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def serve_echo(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection: socket.socket) -> None:
    with connection:
        try:
            while block := connection.recv(1000):
                connection.sendall(block)
        except OSError:
            return


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    with Proxy(echo_port) as running:
        yield running


def connect(proxy: Proxy) -> "closing[socket.socket]":
    return closing(socket.create_connection((HOST, proxy.port), PATIENCE_SECONDS))


def is_silent(connection: socket.socket) -> bool:
    """Tell whether neither a byte nor an end comes for a while."""
    connection.settimeout(SILENCE_SECONDS)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE_SECONDS)
    return False


def says(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(1000)


def test_an_unharmed_link_passes_everything_on(proxy: Proxy) -> None:
    """Bytes in both directions, and the end of the connection."""
    with connect(proxy) as connection:
        assert says(connection, b"hello") == b"hello"
        assert proxy.connections == 1
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert wait_until(lambda: proxy.connections == 0, PATIENCE_SECONDS)


def test_a_pause_holds_and_loses_nothing(proxy: Proxy) -> None:
    """What was sent meanwhile arrives afterwards, on old and new connections."""
    with connect(proxy) as old:
        assert says(old, b"before") == b"before"
        proxy.pause()
        with connect(proxy) as new:
            old.sendall(b"held")
            new.sendall(b"new")
            assert is_silent(old)
            assert is_silent(new)
            proxy.heal()
            assert old.recv(1000) == b"held"
            assert new.recv(1000) == b"new"


def test_a_cut_resets_what_is_connected(proxy: Proxy) -> None:
    """An error and not an orderly end; a new connection works at once."""
    with connect(proxy) as connection:
        assert says(connection, b"before") == b"before"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connect(proxy) as connection:
        assert says(connection, b"after") == b"after"


def test_a_cut_can_refuse_until_it_is_healed(proxy: Proxy) -> None:
    """Nobody listens on the port; then somebody does, on the same one."""
    proxy.cut(refuse=True)
    with pytest.raises(ConnectionRefusedError), connect(proxy):
        pass
    proxy.heal()
    with connect(proxy) as connection:
        assert says(connection, b"after") == b"after"


def test_a_half_open_link_takes_and_never_answers(proxy: Proxy) -> None:
    """Connections are accepted and stay silent; healed, only new ones work."""
    with connect(proxy) as old:
        assert says(old, b"before") == b"before"
        proxy.half_open()
        with connect(proxy) as new:
            old.sendall(b"lost")
            new.sendall(b"lost")
            assert is_silent(old)
            assert is_silent(new)
            proxy.heal()
            old.sendall(b"late")
            assert is_silent(old)
            assert is_silent(new)
    with connect(proxy) as fresh:
        assert says(fresh, b"after") == b"after"
    assert wait_until(lambda: proxy.connections == 0, PATIENCE_SECONDS)


def test_a_connection_that_was_idle_while_half_open_goes_on(proxy: Proxy) -> None:
    """It lost nothing."""
    with connect(proxy) as connection:
        assert says(connection, b"before") == b"before"
        proxy.half_open()
        proxy.heal()
        assert says(connection, b"after") == b"after"


def test_a_slow_link_takes_its_time(proxy: Proxy) -> None:
    """At least the delay, once each way; healed, none is added."""
    with connect(proxy) as connection:
        proxy.delay(0.2)
        started = time.monotonic()
        assert says(connection, b"slow") == b"slow"
        assert time.monotonic() - started >= 0.4
        proxy.heal()
        assert says(connection, b"fast") == b"fast"


def test_it_closes_while_clients_are_connecting(echo_port: int) -> None:
    """And leaves no socket behind, which would be a warning, hence an error."""
    with Proxy(echo_port) as proxy:
        clients = [socket.create_connection((HOST, proxy.port), PATIENCE_SECONDS) for _ in range(60)]
    for client in clients:
        with client, contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    gc.collect()


def test_a_server_that_is_away_is_a_connection_that_ends() -> None:
    """The client is not left waiting."""
    with Proxy(1) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as connection:
        connection.recv(1)
