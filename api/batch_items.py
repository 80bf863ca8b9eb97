"""One item of a batch, before it is a job: its name, and where its bytes are."""

from dataclasses import dataclass
from typing import BinaryIO, Protocol

from shared.errors import BatchTooLarge, HistoQueueError, InvalidItem

#: A name that is given back with each result.
LONGEST_NAME = 128


@dataclass(slots=True)
class Item:
    """One item that was sent; `start` and `size` say where its bytes are, in its intake's own way."""

    name: str
    start: int = 0
    size: int = 0
    #: Why it cannot become a job, as far as that showed while it came in.
    problem: HistoQueueError | None = None


class Intake(Protocol):
    """All items of one batch."""

    items: list[Item]
    #: The same for the same items, whatever request brought them.
    fingerprint: str

    def open(self, item: Item) -> BinaryIO:
        """Return the item's bytes, as a seekable file; safe in several threads.

        Raises:
            HistoQueueError: if it cannot be read.
        """


def checked_name(name: str, number: int) -> tuple[str, HistoQueueError | None]:
    """Return an item's name, or another one to call it by and why its own cannot be used."""
    if 0 < len(name) <= LONGEST_NAME and name.isprintable():
        return name, None
    shown = "".join(sign for sign in name if sign.isprintable())[:80]
    return f"#{number + 1} {shown}".strip(), InvalidItem(
        f"Expected a file name of 1 to {LONGEST_NAME} printable characters. Received: {len(name)}"
    )


def is_plain(path: str) -> bool:
    """Tell whether a path stays below where it begins, whatever system reads it."""
    parts = path.split("/")
    # Half of a pair of UTF-16 is text in JSON alone.
    is_text = not any("\ud800" <= sign <= "\udfff" for sign in path)
    return is_text and all(parts) and not {".", ".."} & set(parts) and not set("\\:\0") & set(path)


def too_many(most_items: int) -> BatchTooLarge:
    """Return what says that a batch has more items than it may."""
    return BatchTooLarge(f"Expected at most {most_items} items. Received: more")
