"""Images that end every engine, among many that are well: each of them fails, and nothing else does."""

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.load import Load
from tests.chaos.plan import CLIENTS, IS_FULL, SEED, WORKERS
from tests.chaos.system import running_system
from tests.chaos.tiles import Tile, small_tile
from tests.fake_engine import CRASH, HANG, SHORT

pytestmark = pytest.mark.integration

GOOD, POISON = (5000, 30) if IS_FULL else (240, 3)
MOST_SOLO_CRASHES = 2


def mixed_tiles(seed: int) -> list[Tile]:
    """Return the good ones and the poison, a third each of crashes, hangs and short answers, shuffled."""
    markers = [b""] * GOOD + [(CRASH, HANG, SHORT)[number % 3] for number in range(POISON)]
    random.Random(seed).shuffle(markers)
    return [small_tile(number, marker) for number, marker in enumerate(markers)]


def test_poison_fails_and_the_tiles_beside_it_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every good tile is right; each poison one ended the engine at most twice while it was alone in it."""
    with running_system(tmp_path, WORKERS, milliseconds_a_tile=4) as system:
        load = Load(system, iter(mixed_tiles(SEED)))
        load.run(CLIENTS)
        history = load.history
        crashes = Counter(system.solo_crashes.read_text().split())
        figures = {
            **report.outcomes(history, system, set()),
            "good": GOOD,
            "good and right": sum(
                end.is_right and not history.accepted[job_id].is_poison
                for job_id, end in history.ended.items()
            ),
            "solo crashes of one image, most": max(crashes.values()),
        }
        report.publish(report.Figures("poison", figures), capsys)
        assert (len(history.accepted), history.poison()) == (GOOD + POISON, POISON)
        assert not history.lost(), system.nursery.story()
        assert not history.wrong(), [history.ended[job_id] for job_id in history.wrong()][:3]
        assert len(crashes) == POISON
        assert set(crashes.values()) <= set(range(1, MOST_SOLO_CRASHES + 1))
