"""Webhooks on real servers: told soon, told again where it failed, told whatever dies."""

import json
import signal
import threading
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from ops.processes import wait_until
from ops.servers import free_port
from tests.stack import png
from tests.webhook_system import Call, Receiver, WebhookSystem

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebhookSystem]:
    """A system that these tests share; each leaves it whole."""
    running = WebhookSystem(tmp_path_factory.mktemp("webhooks"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """One that says 204."""
    listening = Receiver()
    yield listening
    listening.close()


def verified(system: WebhookSystem, call: Call) -> dict[str, object]:
    """Return the body of a call whose signature is right."""
    body: dict[str, object] = Webhook(system.secret).verify(call.body, call.headers)
    return body


def test_the_end_of_a_job_is_told_with_the_job_and_signed(system: WebhookSystem, receiver: Receiver) -> None:
    """The body is what the job's own route answers; another secret does not verify it."""
    path = system.accept(receiver, custom_id="slide-7")
    job = system.finish(path)
    (call,) = receiver.expect(1)
    body = verified(system, call)
    assert body["type"] == "job.succeeded"
    assert body["data"] == job
    assert call.path == "/hook?token=of-the-receiver"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["webhook-signature"].startswith("v1,")
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 43 + "=").verify(call.body, call.headers)
    assert system.reaches(path, "delivered")
    told = system.deliveries(path)
    (delivery,) = told["deliveries"]
    assert (delivery["id"], delivery["event"], delivery["attempt"]) == (call.webhook_id, "job.succeeded", 1)
    assert [made["status"] for made in delivery["tries"]] == [204]
    assert job["links"]["deliveries"] == f"{path}/deliveries"
    assert "127.0.0.1" not in json.dumps(told)


def test_an_answer_that_was_there_already_is_told_too(system: WebhookSystem, receiver: Receiver) -> None:
    """The job ends in the call that accepts it."""
    system.finish(system.accept(None))
    params = {"webhook_url": receiver.url}
    answer = system.http.post("/predict", content=png(), params=params, headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.json()["cached"]) == (200, True)
    (call,) = receiver.expect(1)
    assert verified(system, call)["data"] == answer.json()


def test_a_job_without_a_webhook_tells_nobody(system: WebhookSystem) -> None:
    """Its list is empty, and there is nothing to tell once more."""
    path = system.accept(None)
    assert system.finish(path)["links"]["deliveries"] is None
    assert system.states(path) == []
    answer = system.http.post(f"{path}/redeliver")
    assert (answer.status_code, answer.json()["code"]) == (409, "NO_DELIVERY")


def test_what_is_refused_is_told_again_under_the_same_id(system: WebhookSystem, receiver: Receiver) -> None:
    """500, then 200; the result was there all the time."""
    receiver.answer = lambda number: 500 if number == 0 else 200
    path = system.accept(receiver)
    assert system.finish(path)["status"] == "succeeded"
    first, second = receiver.expect(2)
    assert first.webhook_id == second.webhook_id
    assert verified(system, first) == verified(system, second)
    assert system.reaches(path, "delivered")
    (delivery,) = system.deliveries(path)["deliveries"]
    assert [(made["status"], made["error"]) for made in delivery["tries"]] == [
        (200, None),
        (500, "not_accepted"),
    ]


def test_a_redirect_is_not_followed(system: WebhookSystem, receiver: Receiver) -> None:
    """To an address inside, or anywhere."""
    inside = Receiver()
    receiver.answer, receiver.location = (lambda number: 302), inside.url
    path = system.accept(receiver)
    system.finish(path)
    receiver.expect(2)
    assert inside.calls == []
    (delivery,) = system.deliveries(path)["deliveries"]
    assert (delivery["state"], delivery["tries"][0]["error"]) == ("pending", "redirect")
    assert delivery["next_attempt_at"] is not None
    inside.close()
    assert system.http.delete(path).status_code == 204


def test_410_ends_it_for_this_job_alone(system: WebhookSystem, receiver: Receiver) -> None:
    """Also what a later end of the job would tell; until its owner asks for it."""
    receiver.answer = lambda number: 410 if number == 0 else 204
    system.worker.send(signal.SIGSTOP)
    try:
        path = system.accept(receiver)
        assert system.http.post(f"{path}/cancel").status_code == 200
        assert system.reaches(path, "disabled")
        assert system.deliveries(path)["disabled"] is True
        assert system.http.post(f"{path}/retry").status_code == 202
        assert system.http.post(f"{path}/cancel").status_code == 200
        other = system.accept(receiver)
        assert system.http.post(f"{other}/cancel").status_code == 200
        assert system.reaches(other, "delivered")
        assert system.states(path) == ["disabled"]
        assert len(receiver.calls) == 2
        again = system.http.post(f"{path}/redeliver")
        assert (again.status_code, again.json()["disabled"]) == (202, False)
        assert system.reaches(path, "delivered")
        assert receiver.calls[2].webhook_id == receiver.calls[0].webhook_id
    finally:
        system.worker.send(signal.SIGCONT)


def test_a_job_that_waited_too_long_is_told_too(system: WebhookSystem, receiver: Receiver) -> None:
    """Whoever notices it first announces it: no worker is needed for that."""
    system.worker.send(signal.SIGSTOP)
    try:
        path = system.accept(receiver, expires_in="0.2")
        assert wait_until(lambda: system.http.get(path).status_code == 200, 20, 0.1)
        (call,) = receiver.expect(1)
    finally:
        system.worker.send(signal.SIGCONT)
    body = verified(system, call)
    assert body["type"] == "job.expired"
    assert body["data"] == system.http.get(path).json()


def test_a_receiver_that_hangs_holds_up_no_other(system: WebhookSystem, receiver: Receiver) -> None:
    """However many wait for it: all of the other's are told while not one of its own is."""
    over = threading.Event()
    slow = Receiver()

    def hang(number: int) -> int:
        over.wait(60)
        return 204

    slow.answer = hang
    try:
        waiting = [system.accept(slow) for _ in range(12)]
        for path in waiting:
            system.finish(path)
        slow.expect(2)
        paths = [system.accept(receiver) for _ in range(12)]
        receiver.expect(12)
        assert all(system.reaches(path, "delivered") for path in paths)
        # No more of them at a time than one host has places.
        assert len(slow.calls) == 2
    finally:
        over.set()
    assert all(system.reaches(path, "delivered") for path in waiting)
    slow.close()


def test_a_receiver_that_comes_back_is_told_what_it_missed(system: WebhookSystem) -> None:
    """A closed port is a refusal as any other."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    path = system.accept(url)
    system.finish(path)

    def was_refused() -> bool:
        (delivery,) = system.deliveries(path)["deliveries"]
        return bool(delivery["tries"]) and delivery["tries"][0]["error"] == "no_connection"

    assert wait_until(was_refused, 20, 0.1), system.deliveries(path)
    back = Receiver(port)
    back.expect(1)
    assert system.reaches(path, "delivered")
    back.close()


def test_nothing_is_lost_between_the_end_of_a_job_and_its_delivery(
    system: WebhookSystem, receiver: Receiver
) -> None:
    """Everybody who could know of it is killed in between."""
    system.webhooks.kill()
    paths = [system.accept(receiver) for _ in range(5)]
    for path in paths:
        system.finish(path)
    system.worker.kill()
    assert receiver.calls == []
    system.webhooks.start()
    system.worker.start()
    calls = receiver.expect(5)
    assert len({call.webhook_id for call in calls}) == 5
    assert all(system.reaches(path, "delivered") for path in paths)


def test_a_deliverer_that_dies_in_the_middle_is_replaced(system: WebhookSystem, receiver: Receiver) -> None:
    """Nobody knows whether the receiver got it: it gets it once more, and knows it by its id."""
    over = threading.Event()

    def hang(number: int) -> int:
        if number == 0:
            over.wait(60)
        return 204

    receiver.answer = hang
    path = system.accept(receiver)
    system.finish(path)
    receiver.expect(1)
    system.webhooks.kill()
    system.webhooks.start()
    calls = receiver.expect(2)
    over.set()
    assert calls[0].webhook_id == calls[1].webhook_id
    assert system.reaches(path, "delivered")


def test_a_redis_that_is_killed_loses_no_delivery(system: WebhookSystem) -> None:
    """What waited before waits after it."""
    port = free_port()
    paths = [system.accept(f"http://127.0.0.1:{port}/{number}") for number in range(8)]
    for path in paths:
        system.finish(path)
    system.redis.kill()
    system.start_redis()
    # The deliverer may end itself over it, as an inference worker may; `make up` starts it again.
    back = Receiver(port)

    def all_are_told() -> bool:
        if not system.webhooks.is_running:
            system.webhooks.start()
        return len({call.webhook_id for call in back.calls}) == len(paths)

    assert wait_until(all_are_told, 90, 0.2), system.story()
    back.close()
    if not system.worker.is_running:
        system.worker.start()


def test_a_deleted_job_is_told_to_nobody(system: WebhookSystem, receiver: Receiver) -> None:
    """Nothing of it is kept, also not for those who would have been told."""
    system.webhooks.send(signal.SIGSTOP)
    try:
        path = system.accept(receiver)
        system.finish(path)
        assert system.states(path) == ["pending"]
        assert system.http.delete(path).status_code == 204
        assert system.http.get(f"{path}/deliveries").status_code == 410
        other = system.accept(receiver)
    finally:
        system.webhooks.send(signal.SIGCONT)
    assert system.reaches(other, "delivered")
    assert len(receiver.calls) == 1


def test_what_is_told_is_counted(system: WebhookSystem, receiver: Receiver) -> None:
    """For whoever watches it."""
    path = system.accept(receiver)
    assert system.reaches(path, "delivered")
    page = system.http.get("/metrics").text
    (line,) = [text for text in page.splitlines() if 'webhooks_ended_total{outcome="delivered"}' in text]
    assert float(line.split()[1]) >= 1
    assert "histoqueue_oldest_webhook_seconds" in page


def test_no_log_names_a_receiver(system: WebhookSystem) -> None:
    """Its URL may hold a secret of its owner's."""
    logs = system.story()
    assert "webhook_sent" in logs
    assert "of-the-receiver" not in "".join(path.read_text() for path in system.folder.glob("*.log"))


def test_the_end_of_a_batch_is_told_with_the_batch(system: WebhookSystem, receiver: Receiver) -> None:
    """Once, after the last of its jobs; what its own route answers."""
    files = [("file", (f"{seed}.png", png(seed), "image/png")) for seed in range(5)]
    answer = system.http.post("/batches", files=files, params={"webhook_url": receiver.url})
    assert answer.status_code == 202, answer.text
    path = answer.headers["Location"]
    (call,) = receiver.expect(1)
    body = verified(system, call)
    assert body["type"] == "batch.completed"
    batch = system.http.get(path).json()
    assert body["data"] == batch
    assert (batch["status"], batch["counts"]["succeeded"]) == ("completed", 5)
    assert wait_until(lambda: system.states(path) == ["delivered"], 60, 0.1)
    assert len(receiver.calls) == 1
