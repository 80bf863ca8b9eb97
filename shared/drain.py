"""How fast jobs end: both ledgers count by intervals of ten seconds, over the last minute."""

from collections.abc import Mapping

#: The rates are taken over this long.
DRAIN_WINDOW_SECONDS = 60
INTERVAL_MS = 10_000


def is_recent(interval: int, now_ms: int) -> bool:
    """Tell whether an interval, by its number since the epoch, belongs to the last minute."""
    return interval > (now_ms - DRAIN_WINDOW_SECONDS * 1000) / INTERVAL_MS


def busy_ms(noted: Mapping[int, int], since_ms: int | None, now_ms: int) -> int:
    """Return for how many ms of the last minute some job was open.

    Args:
        noted: number of an interval -> ms of it, and what followed, in which one was.
        since_ms: from when on it is still to be noted; None while no job is open.
        now_ms: the ledger's time.
    """
    recently = sum(ms for interval, ms in noted.items() if is_recent(interval, now_ms))
    return min(recently + max(0, now_ms - (since_ms or now_ms)), DRAIN_WINDOW_SECONDS * 1000)


def service_rate(ended: int, busy_ms: int) -> float:
    """Return how many jobs end per second while there are any, from how many did in a window.

    Of the window only its busy time counts: over all of it a server that had little to do would be taken for
    a slow one, since no more can end than came. Where nothing is noted of when it was busy, it was all along.
    """
    return ended / (busy_ms / 1000 if busy_ms else DRAIN_WINDOW_SECONDS)
