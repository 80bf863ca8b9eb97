"""What lies on the queue of those who tell webhooks: which delivery, of which host, and no word of them."""

import base64
import json
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from ops.processes import wait_until
from ops.servers import RedisServer, free_port
from shared import keys
from shared.deliveries import Taken
from shared.errors import QueueUnavailable
from shared.settings import Settings
from shared.webhook_queue import DELIVER_TASK, CeleryWebhookQueue, make_webhook_celery

pytestmark = pytest.mark.integration
TAKEN = Taken("0192f0c4-5b1e-4c1b-9d43-2f6f0f6f8a11_3_1769851800143", "receiver.example.org:8443")


def test_a_message_names_a_delivery_on_a_queue_of_its_own(
    limited_url: str, redis_client: redis.Redis
) -> None:
    """It is JSON, published with the shipped rights, where no inference worker takes from."""
    app = make_webhook_celery(Settings(redis_url=SecretStr(limited_url)))
    CeleryWebhookQueue(app).enqueue(TAKEN)
    (raw,) = redis_client.lrange(keys.WEBHOOK_QUEUE, 0, -1)
    message = json.loads(raw)
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == DELIVER_TASK
    arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, keywords) == ([], {"delivery_id": TAKEN.delivery_id, "host": TAKEN.host})
    assert redis_client.llen(keys.INFERENCE_QUEUE) == redis_client.llen(keys.BULK_QUEUE) == 0


def test_a_broker_that_is_away_is_said_in_time(tmp_path: Path) -> None:
    """The dispatcher goes on with its round; the delivery is given out again."""
    server = RedisServer(free_port(), "secret", tmp_path / "data")
    child = server.child(tmp_path / "redis.log")
    child.start()
    assert wait_until(server.is_ready, 20)
    queue = CeleryWebhookQueue(make_webhook_celery(Settings(redis_url=SecretStr(server.url))))
    queue.enqueue(TAKEN)
    child.kill()
    with pytest.raises(QueueUnavailable):
        queue.enqueue(TAKEN)
