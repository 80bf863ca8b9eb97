"""Interactive messages go first, and bulk ones always go on."""

from itertools import pairwise

import pytest

from shared import keys
from shared.queue_order import BULK_SHARE, INTERACTIVE_TURNS, QUEUES, Place, WeightedOrder, place_of
from shared.schemas import Job, JobStatus, Priority, Standing
from tests.work import new_job


def taken(lengths: dict[str, int], turns: int) -> list[str]:
    """Return the queues that so many messages come from, as BRPOP takes them."""
    order = WeightedOrder()
    order.update(list(lengths))
    found = []
    for _ in range(turns):
        name = next((name for name in order.consume(len(lengths)) if lengths[name]), None)
        if name is None:
            break
        lengths[name] -= 1
        found.append(order.rotate(name))
    return found


def test_while_both_wait_bulk_gets_every_tenth_turn() -> None:
    """In whatever order the queues were named."""
    for names in (list(QUEUES.values()), list(QUEUES.values())[::-1]):
        sequence = taken(dict.fromkeys(names, 1000), 200)
        places = [turn for turn, name in enumerate(sequence) if name == keys.BULK_QUEUE]
        assert places[0] == INTERACTIVE_TURNS
        assert {after - before for before, after in pairwise(places)} == {INTERACTIVE_TURNS + 1}


def test_alone_each_queue_gets_every_turn() -> None:
    """No turn is left unused."""
    for name in QUEUES.values():
        assert taken({**dict.fromkeys(QUEUES.values(), 0), name: 50}, 50) == [name] * 50


def test_an_interactive_message_passes_a_bulk_backlog() -> None:
    """However long that is."""
    order = WeightedOrder()
    order.update(QUEUES.values())
    for _ in range(100):
        order.rotate(keys.BULK_QUEUE)
    assert order.consume(2)[0] == keys.INFERENCE_QUEUE


@pytest.mark.parametrize("priority", list(Priority))
@pytest.mark.parametrize(("ahead", "others"), [(0, 0), (0, 5), (4, 1000), (40, 0), (40, 3), (100, 1000)])
def test_a_position_is_how_many_leave_first(priority: Priority, ahead: int, others: int) -> None:
    """As the order itself takes them, from a moment when bulk has just had its turn."""
    other = next(name for name in Priority if name != priority)
    sequence = taken({QUEUES[priority]: ahead + 1, QUEUES[other]: others}, ahead + 1 + others)
    own = [turn for turn, name in enumerate(sequence) if name == QUEUES[priority]]
    assert told(priority, ahead, others).position == own[ahead]


def test_an_estimate_counts_what_is_still_to_come() -> None:
    """A bulk job ends no sooner than bulk jobs did lately; none is told where nothing ended."""
    assert told(Priority.INTERACTIVE, 10, ended_lately=120).eta_seconds == 5
    assert told(Priority.BULK, 10, ended_lately=120, bulk_ended_lately=120).eta_seconds == 5
    assert told(Priority.BULK, 10, ended_lately=120, bulk_ended_lately=30).eta_seconds == 20
    assert told(Priority.BULK, 10, ended_lately=120).eta_seconds == 10 / (2 * BULK_SHARE)
    assert told(Priority.BULK, 10).eta_seconds is None


@pytest.mark.parametrize("priority", list(Priority))
def test_whoever_is_next_is_told_of_no_wait(priority: Priority) -> None:
    """However slow it goes."""
    assert told(priority, 0, ended_lately=1).eta_seconds == 0
    assert told(priority, 0).eta_seconds is None


def test_a_quiet_minute_says_nothing_of_what_a_worker_can_do() -> None:
    """Two jobs ended in it, each in 50 ms: the hundredth of a new batch has its turn in five seconds."""
    assert told(Priority.INTERACTIVE, 100, ended_lately=2, busy_ms_lately=100).eta_seconds == 5
    assert told(Priority.BULK, 100, ended_lately=2, busy_ms_lately=100).eta_seconds == 50
    # A ledger of an earlier program has not noted it.
    assert told(Priority.INTERACTIVE, 100, ended_lately=2, busy_ms_lately=0).eta_seconds == 3_000


def test_only_a_job_that_waits_has_a_place() -> None:
    """One that is held off has none that is known, and an ended one has none."""
    job = accepted_job()
    assert place_of(job) == Place(None, None)
    assert place_of(job.model_copy(update={"status": JobStatus.SUCCEEDED})) is None


def told(
    priority: Priority,
    ahead: int,
    others: int = 0,
    ended_lately: int = 0,
    bulk_ended_lately: int = 0,
    busy_ms_lately: int = 60_000,
) -> Place:
    """Return what the client of a job is told that stands so."""
    standing = Standing(
        ahead=ahead,
        others=others,
        ended_lately=ended_lately,
        bulk_ended_lately=bulk_ended_lately,
        busy_ms_lately=busy_ms_lately,
    )
    job = accepted_job()
    spec = job.spec.model_copy(update={"priority": priority})
    place = place_of(job.model_copy(update={"spec": spec, "standing": standing}))
    assert place is not None
    return place


def accepted_job() -> Job:
    """Return a queued job."""
    return Job(
        id="1",
        spec=new_job().spec,
        status=JobStatus.QUEUED,
        version=1,
        created_at_ms=0,
        deadline_ms=1,
        published_at_ms=0,
    )
