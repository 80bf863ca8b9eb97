"""A client that never gives up and writes down all that it was told."""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

import httpx2

from shared.schemas import new_job_id
from tests.chaos.history import History
from tests.chaos.system import System
from tests.chaos.tiles import Tile
from tests.factories import zip_bytes

#: A connection on which nothing comes is given up after this long, as a client of a lost network does.
TIMEOUT_SECONDS = 30.0


class Client:
    """One of several; each has its own connection."""

    def __init__(self, system: System, history: History, is_over: Callable[[], bool]) -> None:
        """`is_over` says when to give up after all."""
        self._http = httpx2.Client(base_url=system.url, timeout=TIMEOUT_SECONDS, trust_env=False)
        self._history = history
        self._is_over = is_over

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._http.close()

    def submit(self, tile: Tile, repeat: bool = False) -> str | None:
        """Send an image until it is accepted, with one key for all tries; None where it gave up.

        `repeat`: send it once more afterwards; the same key must give the same job.
        """
        key = new_job_id()
        first = self._send_until_accepted(tile, key)
        if first is None:
            return None
        self._history.note_accepted(first, tile)
        if repeat and (second := self._send_until_accepted(tile, key)):
            self._history.note_accepted(second, tile, earlier=first)
        return first

    def submit_batch(self, tiles: Sequence[Tile]) -> bool:
        """Send images as one archive until they are accepted, and once more with the same key.

        The same key must give the same batch, with the same job for each image; False where it gave up.
        """
        key, packed = new_job_id(), _archive(tiles)
        ids: list[str] = []
        for _ in range(2):
            batch = self._post_until_accepted("/batches", packed, "application/zip", key, ("broken", "503"))
            if batch is None:
                return False
            ids = ids or [item["id"] for item in batch["items"]]
            for first, item in zip(ids, batch["items"], strict=True):
                tile = tiles[int(item["custom_id"].partition(".")[0])]
                self._history.note_accepted(item["id"], tile, earlier=first)
        return True

    def follow(self, job_id: str) -> bool:
        """Wait for a job's end; False where it gave up."""
        while not self._is_over():
            try:
                answer = self._http.get(f"/result/{job_id}", params={"wait": "5"})
            except httpx2.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                self._history.note_ended(job_id, answer.json())
                return True
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 503:
                time.sleep(0.2)
        return False

    def _send_until_accepted(self, tile: Tile, key: str) -> str | None:
        # The same for each repetition, and one half of each.
        path = f"/predict?priority={'bulk' if sum(key.encode()) % 2 else 'interactive'}"
        job = self._post_until_accepted(path, tile.body, "image/png", key, ("broken", "429", "503"))
        return job and str(job["id"])

    def _post_until_accepted(
        self, path: str, body: bytes, media_type: str, key: str, refusals: Collection[str]
    ) -> dict[str, Any] | None:
        """Send it until it is accepted, refused in these ways alone; None where it gave up."""
        while not self._is_over():
            started = time.monotonic()
            answer = self._post(path, body, media_type, key)
            self._history.note_answered(time.monotonic() - started)
            if answer is not None and answer.status_code in (200, 202):
                accepted: dict[str, Any] = answer.json()
                return accepted
            name = "broken" if answer is None else str(answer.status_code)
            assert name in refusals, answer and answer.text
            self._history.note_refused(name)
            time.sleep(0.2)
        return None

    def _post(self, path: str, body: bytes, media_type: str, key: str) -> httpx2.Response | None:
        try:
            return self._http.post(
                path, content=body, headers={"Content-Type": media_type, "Idempotency-Key": key}
            )
        except httpx2.HTTPError:
            return None


def _archive(tiles: Sequence[Tile]) -> bytes:
    return zip_bytes({f"{number:03}.png": tile.body for number, tile in enumerate(tiles)})
