"""Between Celery's messages and the runner."""

from types import SimpleNamespace
from typing import Any

from shared.schemas import new_job_id
from shared.task_queue import STANDING
from worker.attempt import Message
from worker.intake import Intake


class Runner:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.taken: list[Message] = []

    def take(self, message: Message) -> None:
        """Keep it."""
        self.taken.append(message)


def receive(runner: Runner, is_draining: bool, headers: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Give the intake a message; return how it was answered so far, in a list that goes on growing."""
    answers: list[tuple[str, dict[str, Any]]] = []
    intake = Intake(runner, lambda: is_draining)  # type: ignore[arg-type]
    handle = intake(None, None, SimpleNamespace(connection_errors=(OSError,)))

    def promise(word: str) -> Any:
        def answer(logger: object, errors: tuple[type[Exception], ...], **how: Any) -> None:
            assert errors == (OSError,)
            answers.append((word, how))

        return answer

    handle(SimpleNamespace(headers=headers), None, promise("ack"), promise("reject"), [])
    return answers


def test_a_message_is_acknowledged_when_its_job_has_ended() -> None:
    """And not before: what is acknowledged counts as done."""
    runner, job_id = Runner(), new_job_id()
    answers = receive(runner, False, {"id": job_id, STANDING: [1, 0, 2, 0]})
    (message,) = runner.taken
    assert (message.job_id, message.standing) == (job_id, [1, 0, 2, 0])
    assert answers == []
    message.ended()
    assert answers == [("ack", {})]


def test_a_draining_worker_gives_messages_back() -> None:
    """Another one takes them."""
    runner = Runner()
    assert receive(runner, True, {"id": new_job_id()}) == [("reject", {"requeue": True})]
    assert runner.taken == []


def test_a_message_without_an_id_is_the_runners_to_refuse() -> None:
    """Whoever can write to the queue can put anything there."""
    runner = Runner()
    receive(runner, False, {})
    assert runner.taken[0].job_id == "None"
