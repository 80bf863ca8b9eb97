"""How often one API key may ask: counted in Redis for all servers together, in a window that slides."""

import math
import time

import redis
import structlog
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from shared import keys
from shared.errors import RateLimited

#: After Redis did not answer, nobody is counted for so long: a request waits for it once, and not twice.
HOLD_OFF_SECONDS = 5.0
_log = structlog.stdlib.get_logger("shared.rate_limits")


class RateLimits:
    """Counts requests; a Redis that is away, or lost its data, lets everybody pass."""

    def __init__(self, storage: MemoryStorage | RedisStorage) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._blind_until = 0.0

    def count(self, key_id: str, per_minute: int) -> None:
        """Count one request of this key, if it is limited; 0 is no limit.

        Raises:
            RateLimited: if it is one too many, with the seconds until one more would pass.
        """
        if not per_minute or time.monotonic() < self._blind_until:
            return
        item = RateLimitItemPerMinute(per_minute)
        try:
            if self._limiter.hit(item, key_id):
                return
            free_at = self._limiter.get_window_stats(item, key_id).reset_time
        except redis.RedisError as error:
            self._blind_until = time.monotonic() + HOLD_OFF_SECONDS
            _log.warning("requests_not_counted", error=type(error).__name__)
            return
        raise RateLimited(
            f"Expected at most {per_minute} requests a minute from one API key. Received: more",
            max(1, math.ceil(free_at - time.time())),
        )


def on_redis(client: redis.Redis) -> RateLimits:
    """Count on this server, over the connections of this client."""
    return RateLimits(
        RedisStorage(
            "redis://", connection_pool=client.connection_pool, key_prefix=keys.RATES.removesuffix(":")
        )
    )


def in_process() -> RateLimits:
    """Count in this process alone, for tests."""
    return RateLimits(MemoryStorage())
