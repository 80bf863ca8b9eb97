import pytest

from benchmarks.stages import Book, Timed


class Clock:
    """Moves when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_call_inside_another_is_booked_to_itself_alone() -> None:
    """So the lines of the table add up to the whole."""
    clock = Clock()
    book = Book(cpu=clock, wall=clock)

    def work(seconds: float) -> None:
        clock.now += seconds

    inner = book.around("inner", work)
    with book.entry("outer"):
        work(1)
        inner(2)
        inner(3)
        with book.entry("middle"):
            inner(4)
            work(5)
    assert {name: spent.cpu_seconds for name, spent in book.spent.items()} == {
        "outer": 1,
        "inner": 9,
        "middle": 5,
    }
    assert book.spent["inner"].calls == 3


def test_a_call_that_fails_is_booked_too() -> None:
    """It took its time."""
    clock = Clock()
    book = Book(cpu=clock, wall=clock)

    def fail() -> None:
        clock.now += 1
        raise KeyError

    with pytest.raises(KeyError):
        book.around("failing", fail)()
    assert book.spent["failing"].wall_seconds == 1


def test_every_method_of_a_port_is_booked_under_its_name() -> None:
    """And gives what the port gives."""
    book = Book()
    timed = Timed(["b", "a"], "list", book)
    assert timed.index("a") == 1
    timed.sort()
    assert timed.index("a") == 0
    assert {name: spent.calls for name, spent in book.spent.items()} == {"list.index": 2, "list.sort": 1}
