"""A TCP proxy on the loopback address whose link can be paused, cut, made silent, or slowed down.

It stands between the clients and one server, and knows nothing of what they say to each other.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn, Self

from ops.servers import HOST, free_port

_BLOCK_BYTES = 65_536
#: With this, a closed connection is reset: the peer gets an error at once, and not an orderly end.
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Link:
    """One client's connection, and ours to the server once there is one."""

    client: socket.socket
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    #: Bytes of it were swallowed, so nothing that comes later would make sense.
    is_silent: bool = False

    is_cut: bool = False
    #: Both sides have said all that they had to say.
    has_ended: bool = False

    def reset(self) -> None:
        """Break it off: both sides get an error."""
        self.is_cut = True
        for writer in self.writers:
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()


class Proxy:
    """Listens on `port` and passes everything on to `target_port`, until it is told to do harm.

    One harm at a time; `heal` ends it. Every method returns when it is in effect.
    """

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: socket.socket | None = None
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._flowing, self._heard = asyncio.Event(), asyncio.Event()
        self._delay_seconds = 0.0

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._call(self._listen())
        self.heal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Reset every connection, and be gone."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._links)

    def pause(self) -> None:
        """Hold every byte, and every end of a connection, in both directions; nothing is lost."""
        self._call(self._set(flowing=False))

    def cut(self, refuse: bool = False) -> None:
        """Reset every connection; `refuse`: and nobody listens, until it is healed."""
        self._call(self._cut(refuse))

    def half_open(self) -> None:
        """Take bytes and connections and pass nothing on: no answer, no end.

        As after a router that forgot its table: a connection that lost bytes stays silent when all is well
        again, and only new ones work.
        """
        self._call(self._set(heard=False))

    def delay(self, seconds: float) -> None:
        """Pass each block on after so long."""
        self._call(self._set(delay_seconds=seconds))

    def heal(self) -> None:
        """End the harm."""
        self._call(self._set())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _set(self, flowing: bool = True, heard: bool = True, delay_seconds: float = 0.0) -> None:
        for event, is_set in ((self._flowing, flowing), (self._heard, heard)):
            event.set() if is_set else event.clear()
        self._delay_seconds = delay_seconds
        if self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        # Not asyncio's own server: while that closes, it forgets a connection that it has just accepted.
        listener = socket.create_server((HOST, self.port), backlog=1024)
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept, listener)
        self._listener = listener

    async def _cut(self, refuse: bool) -> None:
        if refuse and self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for link in list(self._links):
            link.reset()

    async def _close(self) -> None:
        await self._cut(refuse=True)
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the aborted transports close their sockets now

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it has gone again
        connection.setblocking(False)
        link = _Link(connection)
        task = self._links[link] = self._loop.create_task(self._serve(link))
        task.add_done_callback(lambda _: self._forget(link))

    def _forget(self, link: _Link) -> None:
        del self._links[link]
        if link.has_ended:
            for writer in link.writers:
                writer.close()
        else:
            link.reset()
        if not link.writers:
            link.client.close()

    async def _serve(self, link: _Link) -> None:
        reader, writer = await asyncio.open_connection(sock=link.client)
        link.writers.append(writer)
        if link.is_cut:
            return
        await self._flowing.wait()
        try:
            if not self._heard.is_set():
                link.is_silent = True
                await self._swallow(reader)
            upstream, downstream = await asyncio.open_connection(HOST, self._target_port)
            link.writers.append(downstream)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, reader, downstream))
                pumps.create_task(self._pump(link, upstream, writer))
            link.has_ended = True
        except (OSError, ExceptionGroup):
            pass  # one side is gone: so is the other

    async def _pump(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while block := await source.read(_BLOCK_BYTES):
            if self._delay_seconds:
                await asyncio.sleep(self._delay_seconds)
            await self._flowing.wait()
            if link.is_silent or not self._heard.is_set():
                link.is_silent = True
                await self._swallow(source)
            sink.write(block)
            await sink.drain()
        await self._flowing.wait()
        if link.is_silent or not self._heard.is_set():
            await self._swallow(source)
        sink.write_eof()

    async def _swallow(self, source: asyncio.StreamReader) -> NoReturn:
        """Take all there is; its end is told to the other side when the link is well again."""
        while await source.read(_BLOCK_BYTES):
            pass
        await self._heard.wait()
        raise ConnectionResetError
