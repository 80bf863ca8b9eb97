"""The queue of those who tell webhooks, apart from the inference workers': neither waits for the other."""

import redis
from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError

from shared import keys
from shared.deliveries import Taken
from shared.errors import QueueUnavailable
from shared.settings import Settings
from shared.task_queue import make_celery

DELIVER_TASK = "histoqueue.deliver"


def make_webhook_celery(settings: Settings) -> Celery:
    """Return an application as the inference workers', with another queue."""
    app = make_celery(settings)
    app.conf.update(
        task_queues=[Queue(keys.WEBHOOK_QUEUE, routing_key=keys.WEBHOOK_QUEUE)],
        task_default_queue=keys.WEBHOOK_QUEUE,
    )
    return app


class CeleryWebhookQueue:
    """Publishes through Celery."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def enqueue(self, taken: Taken) -> None:
        """Publish the message of one delivery.

        Raises:
            QueueUnavailable: if the broker does not answer in time; the delivery is given out again.
        """
        try:
            self._app.send_task(
                DELIVER_TASK,
                kwargs={"delivery_id": taken.delivery_id, "host": taken.host},
                task_id=taken.delivery_id,
            )
        except (OperationalError, redis.RedisError, OSError) as error:
            raise QueueUnavailable("The queue does not answer. Ask again later.") from error
