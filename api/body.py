"""A request whose body fails as its caller's error, and whose temporary files never outlive it."""

from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

from flask import Request, request
from werkzeug.exceptions import RequestEntityTooLarge

from shared.errors import HistoQueueError, InvalidRequest

#: Up to this many bytes of an upload stay in memory; what is larger goes to a temporary file.
SPOOL_BYTES = 1_000_000
#: A body is read in pieces of this.
BLOCK_BYTES = 65_536


class UploadRequest(Request):
    """Flask's request, for an application that receives files."""

    def __init__(self, environ: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        environ["wsgi.input"] = _Body(environ["wsgi.input"])
        super().__init__(environ, *args, **kwargs)
        self._spools: list[SpooledTemporaryFile[bytes]] = []

    def spool(self) -> BinaryIO:
        """Return an empty temporary file that is closed with the request, if not before."""
        file = SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed in `close`
        self._spools.append(file)
        return cast(BinaryIO, file)

    def read_block(self, too_large: HistoQueueError) -> bytes:
        """Return what comes next of the body; nothing at its end.

        Raises:
            HistoQueueError: `too_large`, if it has more bytes than the request may.
        """
        try:
            return self.stream.read(BLOCK_BYTES)
        except RequestEntityTooLarge:
            raise too_large from None

    def spooled(self, most_bytes: int, too_large: HistoQueueError) -> BinaryIO:
        """Return the body as a seekable file, at its start.

        Raises:
            HistoQueueError: `too_large`, as soon as it has more than `most_bytes`.
            InvalidRequest: if it has less than was stated.
        """
        file = self.spool()
        while block := self.read_block(too_large):
            file.write(block)
            if file.tell() > most_bytes:
                raise too_large
        expected = self.content_length
        if expected is not None and file.tell() < expected:
            raise InvalidRequest(
                f"Expected a body of {expected} bytes. Received: {file.tell()}. Send it again."
            )
        file.seek(0)
        return file

    def _get_file_stream(self, *_args: Any, **_kwargs: Any) -> BinaryIO:
        """Give a form's parser the file that it writes to; Werkzeug's own are lost when a form breaks off."""
        return self.spool()

    def close(self) -> None:
        """Release the files; Flask calls it when the request is over."""
        super().close()
        for file in self._spools:
            file.close()


class _Body:
    """The server's input, whose every failure is the client's: a broken chunk, a connection that ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:
            raise InvalidRequest("Expected the whole body. It broke off; send it again.") from error


def upload_request() -> UploadRequest:
    """Return the present request."""
    return cast(UploadRequest, request)
