"""Interactive messages go first, and bulk ones always go on."""

from itertools import pairwise

import pytest

from shared import keys
from shared.queue_order import BULK_SHARE, INTERACTIVE_TURNS, QUEUES, Place, WeightedOrder
from shared.schemas import Priority


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
    order = WeightedOrder(QUEUES.values())
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
    assert Place(priority, ahead, others).position == own[ahead]


def test_an_estimate_counts_what_is_still_to_come() -> None:
    """A bulk job ends no sooner than bulk jobs did lately; none is told where nothing ended."""
    interactive, bulk = Place(Priority.INTERACTIVE, 9, 0), Place(Priority.BULK, 9, 0)
    assert interactive.eta_seconds(drain_rate=2, bulk_rate=0) == 5
    assert bulk.eta_seconds(drain_rate=2, bulk_rate=2) == 5
    assert bulk.eta_seconds(drain_rate=2, bulk_rate=0.5) == 20
    assert bulk.eta_seconds(drain_rate=2, bulk_rate=0) == 10 / (2 * BULK_SHARE)
    assert bulk.eta_seconds(drain_rate=0, bulk_rate=0) is None
