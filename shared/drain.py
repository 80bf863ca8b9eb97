"""How fast jobs end: both ledgers count by intervals of ten seconds, over the last minute."""

from collections.abc import Mapping

#: The rates are taken over this long.
DRAIN_WINDOW_SECONDS = 60
INTERVAL_MS = 10_000


def first_recent(now_ms: int) -> int:
    """Return the number, since the epoch, of the first interval that belongs to the last minute."""
    return now_ms // INTERVAL_MS - DRAIN_WINDOW_SECONDS * 1000 // INTERVAL_MS + 1


def by_interval(since_ms: int, now_ms: int) -> dict[int, int]:
    """Return how many ms of a period lie in each interval; of a long one those of the last minute suffice."""
    last = now_ms // INTERVAL_MS
    return {
        interval: min(now_ms, (interval + 1) * INTERVAL_MS) - max(since_ms, interval * INTERVAL_MS)
        for interval in range(max(since_ms // INTERVAL_MS, first_recent(now_ms)), last + 1)
    }


def busy_ms(noted: Mapping[int, int], since_ms: int | None, now_ms: int) -> int:
    """Return for how many ms of the last minute some job was open.

    Args:
        noted: number of an interval -> ms of it in which one was.
        since_ms: from when on it is still to be noted; None while no job is open.
        now_ms: the ledger's time.
    """
    first = first_recent(now_ms)
    recently = sum(ms for interval, ms in noted.items() if interval >= first)
    # The ledger's time is estimated here: a period may have begun a moment after it.
    return recently + (max(0, now_ms - max(since_ms, first * INTERVAL_MS)) if since_ms is not None else 0)


def service_rate(ended: int, busy_ms: int) -> float:
    """Return how many jobs end per second while there are any, from how many did in a window.

    Of the window only its busy time counts: over all of it a server that had little to do would be taken for
    a slow one, since no more can end than came. Where nothing is noted of when it was busy, it was all along.
    """
    return ended / (busy_ms / 1000 if busy_ms else DRAIN_WINDOW_SECONDS)
