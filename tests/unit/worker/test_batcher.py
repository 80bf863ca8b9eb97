"""Micro-batches, and what happens to the members of one that goes wrong."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from ops.processes import wait_until
from shared.errors import EngineCrashed, InvalidModel
from shared.schemas import ModelRef
from tests.fake_engine import CRASH, HANG
from worker.batcher import Batcher, Draining, EngineUnusable, Unwanted
from worker.gpu import NoGpu
from worker.metrics import REGISTRY
from worker.supervisor import EngineSupervisor, Outcome

MODEL = ModelRef(name="lung-cnn", version="1.0.0", sha256="0" * 64)
OTHER = ModelRef(name="lung-cnn", version="2.0.0", sha256="1" * 64)


def wanted() -> bool:
    """Somebody waits for it."""
    return True


class GatedEngine:
    """Notes each micro-batch, and runs it when the test opens the gate."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[bytes]]] = []
        self.mpps: list[list[float | None]] = []
        self.explained: list[list[bool]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.before_telling: Callable[[], object] = lambda: None
        self.broken = False
        self.progressed_at = 0.0

    def ensure(self, model: ModelRef) -> None:
        """Fail where the test says so."""
        if self.broken:
            raise InvalidModel("Expected a golden tile's answer.")

    def revive(self) -> None:
        """It is always well."""

    def run(
        self,
        model: ModelRef,
        images: Sequence[bytes],
        mpps: Sequence[float | None],
        explained: Sequence[bool],
        meanwhile: Callable[[], object],
    ) -> list[Outcome]:
        """Wait for the gate, then crash or answer."""
        self.before_telling()
        meanwhile()
        self.mpps.append(list(mpps))
        self.explained.append(list(explained))
        self.batches.append((model.version, list(images)))
        self.entered.set()
        self.gate.wait(10)
        if b"crash" in images:
            raise EngineCrashed("died")
        if b"bug" in images:
            raise RuntimeError("a bug of ours")
        return [{"result": {"text": image.decode()}} for image in images]


@pytest.fixture
def engine() -> GatedEngine:
    """An engine that the test controls."""
    return GatedEngine()


@pytest.fixture
def batcher(engine: GatedEngine) -> Iterator[Batcher]:
    """A running batcher with micro-batches of at most four."""
    made = Batcher(engine, max_batch_size=4)
    made.start()
    yield made
    engine.gate.set()
    made.drain()
    made.join(5)


def submit(batcher: Batcher, *images: bytes, alone: bool = False, model: ModelRef = MODEL):  # type: ignore[no-untyped-def]
    """Queue images that are wanted."""
    return [batcher.submit(image, model, alone, wanted) for image in images]


def hold(batcher: Batcher, engine: GatedEngine):  # type: ignore[no-untyped-def]
    """Keep the engine busy with one image."""
    future = batcher.submit(b"first", MODEL, False, wanted)
    assert engine.entered.wait(5)
    return future


def test_what_arrives_while_the_engine_is_busy_goes_together(batcher: Batcher, engine: GatedEngine) -> None:
    """A lone image starts at once; those behind it form the next micro-batch, up to the largest."""
    sizes = ("1.0", "4.0", "+Inf")
    counted = [batches(size) for size in sizes]
    first = hold(batcher, engine)
    rest = submit(batcher, b"a", b"b", b"c", b"d", b"e")
    engine.gate.set()
    assert first.result(5)["result"]["text"] == "first"
    assert [future.result(5)["result"]["text"] for future in rest] == ["a", "b", "c", "d", "e"]
    assert [images for _, images in engine.batches] == [[b"first"], [b"a", b"b", b"c", b"d"], [b"e"]]
    assert [batches(size) - before for size, before in zip(sizes, counted, strict=True)] == [2, 3, 3]


def test_the_engine_has_its_next_images_before_the_last_ones_are_told(
    batcher: Batcher, engine: GatedEngine
) -> None:
    """It stood still meanwhile; what is told wakes threads that want Python's lock, too."""
    first = hold(batcher, engine)
    told: list[bool] = []
    engine.before_telling = lambda: told.append(first.done())
    (second,) = submit(batcher, b"second")
    engine.gate.set()
    assert second.result(5)["result"]["text"] == "second"
    assert told == [False]
    assert first.done()


def test_an_outcome_waits_for_no_other_image(batcher: Batcher, engine: GatedEngine) -> None:
    """Where none comes next it is told at once, not after a wait for one."""
    engine.gate.set()
    began = time.monotonic()
    for _ in range(10):
        submit(batcher, b"lone")[0].result(5)
    assert time.monotonic() - began < 1


def test_an_engine_that_fails_before_it_computes_keeps_back_nothing(
    batcher: Batcher, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered before is told before a new engine is started, which takes its time."""
    first = hold(batcher, engine)
    told: list[bool] = []

    def fail() -> None:
        raise EngineCrashed("took no byte of it")

    engine.before_telling = fail
    monkeypatch.setattr(engine, "ensure", lambda _: told.append(first.done()))
    (second,) = submit(batcher, b"second")
    engine.gate.set()
    with pytest.raises(EngineCrashed):
        second.result(5)
    assert told == [True]


def test_outcomes_are_told_before_a_dead_engine_is_replaced(
    batcher: Batcher, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what came next is wanted no more."""
    first = hold(batcher, engine)
    told: list[bool] = []
    monkeypatch.setattr(engine, "revive", lambda: told.append(first.done()))
    batcher._look_again_at = 0.0
    dropped = batcher.submit(b"dropped", MODEL, False, lambda: False)
    engine.gate.set()
    with pytest.raises(Unwanted):
        dropped.result(5)
    assert wait_until(lambda: bool(told), 5)
    assert told[0]


def test_each_image_keeps_its_own_scale(batcher: Batcher, engine: GatedEngine) -> None:
    """Micrometres per pixel go with their image into the micro-batch; one that states none has none."""
    hold(batcher, engine)
    stated = [0.25, None, 0.5]
    futures = [batcher.submit(b"x", MODEL, False, wanted, mpp) for mpp in stated]
    engine.gate.set()
    for future in futures:
        future.result(5)
    assert engine.mpps == [[None], stated]


def test_an_image_that_is_explained_holds_up_no_other(batcher: Batcher, engine: GatedEngine) -> None:
    """It takes the time of fifty, so it runs alone."""
    hold(batcher, engine)
    futures = [batcher.submit(b"x", MODEL, False, wanted, None, explain) for explain in (False, True, False)]
    engine.gate.set()
    for future in futures:
        future.result(5)
    assert engine.explained[0] == [False]
    assert sorted(engine.explained[1:]) == [[False, False], [True]]


def test_a_micro_batch_holds_one_model_version(batcher: Batcher, engine: GatedEngine) -> None:
    """Jobs of two versions never share a forward pass."""
    hold(batcher, engine)
    futures = submit(batcher, b"a") + submit(batcher, b"b", model=OTHER) + submit(batcher, b"c")
    engine.gate.set()
    for future in futures:
        future.result(5)
    assert engine.batches[1:] == [("1.0.0", [b"a"]), ("2.0.0", [b"b"]), ("1.0.0", [b"c"])]


@pytest.mark.parametrize("others", [[b"good"], [b"good", b"other"]])
def test_the_members_of_a_crashed_batch_run_again_alone(
    batcher: Batcher, engine: GatedEngine, others: list[bytes]
) -> None:
    """The innocent succeed, and only the one that crashes alone is blamed."""
    hold(batcher, engine)
    bad, *good = submit(batcher, b"crash", *others)
    engine.gate.set()
    assert [future.result(5)["result"]["text"].encode() for future in good] == others
    with pytest.raises(EngineCrashed):
        bad.result(5)
    assert [images for _, images in engine.batches[2:]] == [[b"crash"], *([image] for image in others)]


def test_nobody_is_blamed_while_no_engine_is_well(batcher: Batcher, engine: GatedEngine) -> None:
    """A crash counts against an image only if a fresh engine passes its golden tiles."""
    engine.broken = True
    engine.gate.set()
    (future,) = submit(batcher, b"crash", alone=True)
    with pytest.raises(EngineUnusable):
        future.result(5)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), NoGpu("none"), KeyError("a bug")])
def test_whatever_keeps_an_engine_from_starting_the_batcher_lives_on(
    batcher: Batcher, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """After a crash, too: the image is handed back, and the next one runs."""

    def fail(model: ModelRef) -> None:
        raise error

    engine.gate.set()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "ensure", fail)
        (future,) = submit(batcher, b"crash", alone=True)
        with pytest.raises(EngineUnusable):
            future.result(5)
    (good,) = submit(batcher, b"good")
    assert good.result(5)["result"]["text"] == "good"


@pytest.mark.parametrize("error", [NoGpu("none"), KeyError("a bug")])
def test_an_idle_batcher_outlives_whatever_a_revival_raises(engine: GatedEngine, error: Exception) -> None:
    """It looks again a second later, and takes what comes."""
    looked = threading.Event()

    def fail() -> None:
        looked.set()
        raise error

    engine.revive = fail  # type: ignore[method-assign]
    engine.gate.set()
    batcher = Batcher(engine, max_batch_size=4)
    batcher.start()
    assert looked.wait(5)
    (good,) = submit(batcher, b"good")
    assert good.result(5)["result"]["text"] == "good"
    batcher.drain()
    batcher.join(5)


def test_suspects_take_turns_with_the_others(batcher: Batcher, engine: GatedEngine) -> None:
    """A row of suspects does not hold up the traffic, nor the traffic them."""
    hold(batcher, engine)
    submit(batcher, b"s1", b"s2", alone=True)
    last = submit(batcher, b"a", b"b", b"c", b"d", b"e")[-1]
    engine.gate.set()
    last.result(5)
    assert [images for _, images in engine.batches[1:5]] == [
        [b"s1"],
        [b"a", b"b", b"c", b"d"],
        [b"s2"],
        [b"e"],
    ]


def test_an_image_that_nobody_waits_for_is_not_run(batcher: Batcher, engine: GatedEngine) -> None:
    """A canceled job costs no forward pass."""
    hold(batcher, engine)
    dropped = batcher.submit(b"dropped", MODEL, False, lambda: False)
    kept = batcher.submit(b"kept", MODEL, False, wanted)
    engine.gate.set()
    kept.result(5)
    with pytest.raises(Unwanted):
        dropped.result(5)
    assert engine.batches[1][1] == [b"kept"]


def test_a_drain_finishes_what_runs_and_hands_back_the_rest(batcher: Batcher, engine: GatedEngine) -> None:
    """The running micro-batch ends well, the waiting ones and later ones are refused."""
    running = hold(batcher, engine)
    (waiting,) = submit(batcher, b"waiting")
    batcher.drain()
    with pytest.raises(Draining):
        submit(batcher, b"late")
    engine.gate.set()
    assert running.result(5)["result"]["text"] == "first"
    with pytest.raises(Draining):
        waiting.result(5)


def test_a_bug_of_ours_fails_no_job_and_the_batcher_lives_on(batcher: Batcher, engine: GatedEngine) -> None:
    """The members are handed back, and the next micro-batch runs."""
    engine.gate.set()
    (bug,) = submit(batcher, b"bug")
    with pytest.raises(EngineUnusable):
        bug.result(5)
    (good,) = submit(batcher, b"good")
    assert good.result(5)["result"]["text"] == "good"


def test_a_batch_that_never_ends_is_seen_as_stuck(batcher: Batcher, engine: GatedEngine) -> None:
    """The lease keeper asks this before it renews."""
    assert not batcher.is_stuck(0.0)
    hold(batcher, engine)
    assert batcher.is_stuck(0.0)
    assert not batcher.is_stuck(60)


def test_a_worker_that_has_had_nothing_to_do_for_long_is_not_stuck(
    batcher: Batcher, engine: GatedEngine
) -> None:
    """However long ago its last micro-batch began."""
    engine.gate.set()
    assert batcher.submit(b"one", MODEL, False, wanted).result(5)
    assert wait_until(lambda: not batcher.is_stuck(0.0), 5)


def test_a_batcher_that_has_nothing_to_do_takes_no_time(batcher: Batcher) -> None:
    """It waits for an image, or for the end."""
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25


def test_a_turn_of_several_steps_is_stuck_only_where_one_of_them_is(
    batcher: Batcher, engine: GatedEngine
) -> None:
    """Two starts and a micro-batch take longer than any of them may; each new step begins the time anew."""
    hold(batcher, engine)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        engine.progressed_at = time.monotonic()
        assert not batcher.is_stuck(0.2)
        time.sleep(0.01)
    assert wait_until(lambda: batcher.is_stuck(0.2), 2)


def test_a_real_process_that_dies_harms_only_the_image_that_kills_it(supervisor: EngineSupervisor) -> None:
    """Crash and hang among good images, with a real engine process under the batcher."""
    batcher = Batcher(supervisor, max_batch_size=8)
    texts = [b"a", CRASH, b"b", HANG, b"c", b"d"]
    futures = {text: batcher.submit(text, MODEL, False, wanted) for text in texts}
    batcher.start()
    good: Callable[[bytes], str] = lambda text: futures[text].result(30)["result"]["text"]  # noqa: E731
    assert [good(text) for text in (b"a", b"b", b"c", b"d")] == ["a", "b", "c", "d"]
    for text in (CRASH, HANG):
        assert futures[text].exception(30) is not None
    batcher.drain()
    batcher.join(5)


def test_an_engine_that_dies_idle_comes_back_without_a_job(supervisor: EngineSupervisor) -> None:
    """Readiness hangs on it: with no engine no job may come that would bring it back."""
    supervisor.ensure(MODEL)
    batcher = Batcher(supervisor, max_batch_size=4)
    batcher.start()
    first = supervisor.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: supervisor.pid != first and supervisor.model == MODEL, 10)
    batcher.drain()
    batcher.join(5)


def batches(at_most: str) -> float:
    """Return how many micro-batches of at most so many images there were so far."""
    return REGISTRY.get_sample_value("histoqueue_worker_batch_size_bucket", {"le": at_most}) or 0.0
