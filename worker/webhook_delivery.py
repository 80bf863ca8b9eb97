"""One message to a sender: tell a webhook of an event, book the outcome, go on with the next of its host."""

import json
import os
import random
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from standardwebhooks import Webhook

from shared.deliveries import Deliveries, Delivery, DeliveryState, Taken, Try
from shared.errors import Unavailable
from shared.representation import NOTICE, batch_body, job_body, timestamp
from shared.schemas import Batch, Job
from shared.settings import Settings
from worker.webhook_http import Answer, WebhookSender
from worker.webhook_turns import Turns

#: A message that nobody took for so long is published again.
HOLD_SECONDS = 30.0
#: A sender that is silent for so long is lost; an attempt ends before that.
LEASE_SECONDS = 20.0
#: How long one message goes on with a host's next delivery, before another host's message has its turn.
TURN_SECONDS = 5.0
Send = Callable[[str, bytes, dict[str, str]], Answer]
_log = structlog.get_logger(__name__)


class Deliverer:
    """Shared by all threads that send."""

    def __init__(
        self,
        deliveries: Deliveries,
        settings: Settings,
        publish: Callable[[Taken], None],
        send: Send | None = None,
    ) -> None:
        """`publish` puts a message on the queue; `send` stands for the network in tests."""
        self._deliveries = deliveries
        self._settings = settings
        self._publish = publish
        self._send = send or make_sender(settings).post
        self._turns = Turns(settings.webhook_threads)
        self._signers = [Webhook(secret) for secret in settings.webhook_secrets]
        # Where the API is mounted: gunicorn's own variable.
        self._root = os.environ.get("SCRIPT_NAME", "")

    def dispatch(self) -> int:
        """Publish a message for each delivery whose time has come; return how many."""
        if not self._signers:
            return 0
        places = self._settings.webhook_threads_per_host
        taken = self._deliveries.take(places, places, HOLD_SECONDS)
        for item in taken:
            self._publish(item)
        return len(taken)

    def run(self, taken: Taken, is_draining: Callable[[], bool] = lambda: False) -> None:
        """Make one delivery, and go on with its host's others for a while.

        Where its API key has as many threads as one gets, it waits for the first of them. Raises nothing that
        time will mend: what is not booked is given out again.
        """
        if not self._turns.begin(taken):
            return
        try:
            try:
                self._take_turn(taken, is_draining)
            finally:
                if waiting := self._turns.end(taken.owner):
                    self._publish(waiting)
        except Unavailable as error:
            _log.warning("delivery_left_to_the_dispatcher", error=str(error))

    def _take_turn(self, taken: Taken, is_draining: Callable[[], bool]) -> None:
        until = time.monotonic() + TURN_SECONDS
        following: Taken | None = taken
        while following and time.monotonic() < until:
            self._deliver(following)
            following = None if is_draining() else self._next_of(taken.host)
        if following:
            self._publish(following)

    def _next_of(self, host: str) -> Taken | None:
        places = self._settings.webhook_threads_per_host
        return next(iter(self._deliveries.take(places, 1, HOLD_SECONDS, host)), None)

    def _deliver(self, taken: Taken) -> None:
        token = secrets.token_hex(8)
        delivery = self._deliveries.claim(taken, token, LEASE_SECONDS)
        if delivery is None:
            return
        began = time.monotonic()
        answer = self._tell(delivery)
        made = Try(
            at_ms=delivery.started_at_ms or 0,
            status=answer.status,
            error=answer.error,
            duration_ms=round((time.monotonic() - began) * 1000),
        )
        state, wait = self._verdict(delivery, answer)
        written = self._deliveries.settle(delivery.id, token, state, made, wait)
        # Neither the URL nor the host: both may hold what is its owner's alone.
        _log.info(
            "webhook_sent",
            delivery_id=delivery.id,
            outcome=state.value,
            attempt=delivery.attempt,
            status=answer.status,
            error=answer.error,
            ms=made.duration_ms,
            written=written,
        )

    def _tell(self, delivery: Delivery) -> Answer:
        try:
            return self._send(delivery.url, *self._message(delivery))
        except Exception:  # noqa: BLE001 - logged whole
            # A bug of ours counts as a refusal: else it would be made again without end, and uncounted.
            _log.exception("webhook_not_sent", delivery_id=delivery.id)
            return Answer(None, "internal")

    def _message(self, delivery: Delivery) -> tuple[bytes, dict[str, str]]:
        """Return the body and its headers (Standard Webhooks 1.0), one signature for each secret."""
        body = json.dumps(
            {
                "type": delivery.event,
                "timestamp": timestamp(delivery.announced_at_ms),
                "data": self._data(delivery.about),
            },
            separators=(",", ":"),
        )
        now = datetime.now(UTC)
        return body.encode(), {
            "Content-Type": "application/json",
            "User-Agent": "HistoQueue-Webhooks",
            "X-HistoQueue-Notice": NOTICE,
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signer.sign(delivery.id, now, body) for signer in self._signers),
        }

    def _data(self, about: Job | Batch) -> dict[str, Any]:
        """Return what the subject's own route answers."""
        if isinstance(about, Batch):
            return batch_body(about, self._root)
        return job_body(about, self._settings, self._root)

    def _verdict(self, delivery: Delivery, answer: Answer) -> tuple[DeliveryState, float]:
        """Return what becomes of the delivery, and in how many seconds it is tried again."""
        if answer.error is None:
            return DeliveryState.DELIVERED, 0
        if answer.status == 410:
            return DeliveryState.DISABLED, 0
        waits = self._settings.webhook_waits
        refused = sum(1 for made in delivery.tries if made.at_ms >= delivery.since_ms)
        # Full jitter: those that failed together do not come again together.
        wait = random.uniform(0, waits[min(refused, len(waits) - 1)])  # noqa: S311 - no secret
        age_seconds = ((delivery.started_at_ms or 0) - delivery.since_ms) / 1000
        if age_seconds + wait > self._settings.webhook_give_up_seconds:
            return DeliveryState.FAILED, 0
        return DeliveryState.PENDING, wait


def make_sender(settings: Settings) -> WebhookSender:
    """Return what these settings send with."""
    ca_file = str(settings.webhook_ca_file) if settings.webhook_ca_file else None
    return WebhookSender(settings.webhook_allowed, ca_file)
