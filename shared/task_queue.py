"""The queue between the API and the workers: Celery on Redis, as transport only.

A message holds a job's id and nothing of its image; the ledger holds the truth, and the transition that
queues a job publishes its message. Losing one, or delivering it twice, is normal: `JobStore.claim_all` drops
the second one and the reaper publishes the lost one again.
"""

import json
import threading
from collections import deque
from typing import Any, Protocol

import redis
from celery import Celery
from kombu import Queue

from shared import keys
from shared.errors import QueueUnavailable
from shared.queue_order import QUEUES
from shared.redis_address import RedisAddress
from shared.schemas import Job, Priority
from shared.settings import Settings

#: The ledger's scripts publish by this name (shared/lua/common.lua); nobody but a worker has the task's code.
INFER_TASK = "histoqueue.infer"
#: Headers of a message: when it was published, by Redis' clock, and where its job stood then, for a metric.
PUBLISHED_AT = "published_at_ms"
STANDING = "standing"


class TaskQueue(Protocol):
    """What waits to be taken by a worker."""

    def heads(self) -> dict[Priority, int | None]:
        """Return when the message that leaves each queue next was published; None where it is empty.

        Raises:
            QueueUnavailable: if the broker does not answer in time.
        """


def make_celery(settings: Settings) -> Celery:
    """Return the Celery application that both sides use; the reasons are in docs/explanation/delivery.md."""
    app = Celery("histoqueue", set_as_current=False)
    broker = RedisAddress.parse(settings.redis_url.get_secret_value()).broker(settings.redis_ca_path)
    app.conf.update(
        broker_url=broker.url,
        broker_use_ssl=broker.use_ssl,
        # JSON only: a pickle is code, run for whoever can write to Redis.
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        # No result backend: `GET /result` is answered from the ledger, which can tell lost from pending.
        result_backend=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_queues=[Queue(name, routing_key=name) for name in QUEUES.values()],
        task_default_queue=keys.INFERENCE_QUEUE,
        task_create_missing_queues=False,
        # Acknowledge after the outcome is in the ledger; with a multiplier of 1, fetched means running.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # Both would bring a job that kills its worker back without end; the ledger counts and stops.
        task_reject_on_worker_lost=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # What Redis refuses, too: after a failover behind one address the next connection finds the master.
        broker_channel_error_retry=True,
        broker_connection_timeout=3,
        broker_transport_options=broker.transport_options
        | {
            # Interactive before bulk, and bulk never starved: shared/queue_order.py.
            "queue_order_strategy": "shared.queue_order:WeightedOrder",
            # No copy in Redis of each message that is under way: what is lost with a worker, the ledger finds
            # by the lease or the watermark, long before a visibility timeout.
            "ack_emulation": False,
            # Longer than the second that a consumer blocks for; the default waits for ever.
            "socket_timeout": 3,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # A publication knocks twice, at once; the default goes on for six seconds at a closed port. (The
            # worker's own reconnection is bounded by `broker_connection_max_retries` instead.)
            "max_retries": 1,
            "interval_start": 0,
            "interval_max": 0,
        },
        # Threads cannot be cancelled: finishing the micro-batch is cheaper, and a stale outcome is refused.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_prefetch_count_reduction=False,
        # No commands by Celery's own pub/sub, and events only where they are asked for: fewer ways to fail.
        worker_enable_remote_control=False,
        worker_send_task_events=settings.task_events,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


class RedisTaskQueue:
    """Looks at the next message of each list."""

    def __init__(self, client: redis.Redis) -> None:
        """`client` reaches the Redis that is the broker."""
        self._redis = client

    def heads(self) -> dict[Priority, int | None]:
        try:
            # kombu pushes on the left and pops on the right.
            found: dict[Priority, bytes | None] = {
                # As it is: what somebody else has put there may be in no encoding of ours.
                priority: self._redis.execute_command("LINDEX", name, -1, NEVER_DECODE=True)  # type: ignore[no-untyped-call]
                for priority, name in QUEUES.items()
            }
        except redis.RedisError as error:
            raise QueueUnavailable("The queue does not answer. Ask again later.") from error
        return {priority: None if head is None else _published_at(head) for priority, head in found.items()}


def _published_at(message: bytes) -> int:
    """Read a message's time; 0 for one that is not ours: nothing is known until it has left the queue."""
    try:
        value: Any = json.loads(message)["headers"][PUBLISHED_AT]
        return int(value)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0


class MemoryTaskQueue:
    """Messages in a list, for tests."""

    def __init__(self) -> None:
        self.messages: deque[tuple[str, int]] = deque()
        self.bulk_messages: deque[tuple[str, int]] = deque()
        self._lock = threading.Lock()

    def publish(self, job: Job) -> None:
        """Put in a job's message."""
        with self._lock:
            queue = self.bulk_messages if job.spec.priority == Priority.BULK else self.messages
            queue.append((job.id, job.published_at_ms))

    def heads(self) -> dict[Priority, int | None]:
        with self._lock:
            queues = {Priority.INTERACTIVE: self.messages, Priority.BULK: self.bulk_messages}
            return {priority: queue[0][1] if queue else None for priority, queue in queues.items()}
