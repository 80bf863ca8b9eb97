import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.figures import Latency
from benchmarks.measure import Measurement, largest_difference
from benchmarks.report import write_report
from benchmarks.run import Ceiling, Plan, Session, Start
from benchmarks.systems import PEER_SYSTEMS, our_systems

MACHINE: dict[str, str | int] = {
    "processor": "p", "cores": 2, "memory_gib": 8, "system": "Linux", "python": "3.11", "tensorflow-cpu": "2",
}  # fmt: skip


def measurement(system: str, load: str, rate: float, **fields: object) -> Measurement:
    """Return a sound measurement."""
    sound: dict[str, object] = {
        "size": 224, "round": 1, "answered": 10, "failed": 0, "first_failure": None,
        "latency": Latency(1, 2, 3), "cpu_ms": {"engine": 4.0, "api": 3.0}, "client_cpu_ms": 1.0,
        "peak_rss_mib": 600.0, "foreign_share": 0.0, "difference": 0.0, "sent_late_seconds": 0.0,
    }  # fmt: skip
    return Measurement(system=system, load=load, images_a_second=rate, **{**sound, **fields})  # type: ignore[arg-type]


def plan(tmp_path: Path) -> Plan:
    return Plan(
        model=tmp_path / "lung-cnn-1.2.3", cache=tmp_path, tiles={224: [tmp_path]},
        systems=[*our_systems(["tensorflow"]), *PEER_SYSTEMS], runtimes=["tensorflow"], cores=2, rounds=2,
        seconds=1, clients=16, shares=[0.5], repeats=0, say=print,
    )  # fmt: skip


def written(session: Session, tmp_path: Path) -> str:
    now = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
    path = write_report(session, plan(tmp_path), MACHINE, {224: "drawn tiles"}, tmp_path / "results", now)
    assert path.name == "2026-11-22-1030-lung-cnn-1.2.3.md"
    assert path.with_name(f"{path.stem}.json").is_file()
    assert path.with_name(f"{path.stem}.png").read_bytes().startswith(b"\x89PNG")
    return path.read_text()


def test_a_report_tells_how_full_micro_batches_were(tmp_path: Path) -> None:
    """In hundredths of all rounds together, for the systems that tell it."""
    session = Session(
        measurements=[
            measurement("ours-tensorflow", "16 clients", 100, micro_batches={1: 1, 8: 2}),
            measurement("ours-tensorflow", "16 clients", 100, micro_batches={8: 1}),
            measurement("seed", "16 clients", 20),
        ]
    )
    lines = written(session, tmp_path).splitlines()
    head = next(line for line in lines if line.startswith("| micro-batches"))
    assert head == "| micro-batches of so many images, 16 clients | 1 | 5 to 8 |"
    assert lines[lines.index(head) + 2] == "| HistoQueue, tensorflow | 25% | 75% |"
    assert not lines[lines.index(head) + 3]


def test_a_report_gives_ratios_to_the_ceiling_and_to_the_seed(tmp_path: Path) -> None:
    """By the medians of the rounds."""
    session = Session(
        ceilings=[
            Ceiling("tensorflow, a process per core", 224, number, rate, 2.0, 1.0)
            for number, rate in ((1, 190), (2, 210))
        ],
        starts=[Start("seed", 1, 3.25, 500)],
        measurements=[
            measurement("ours-tensorflow", "16 clients", 100),
            measurement("ours-tensorflow", "one client", 10),
            measurement("ours-tensorflow", "open, 50% of its throughput", 50),
            measurement("seed", "16 clients", 25),
        ],
    )
    text = written(session, tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| HistoQueue, tensorflow | 100.0"))
    assert row.startswith(
        "| HistoQueue, tensorflow | 100.0 | 0.50 | 4.00 | 7.0 | 1.0 | 1 / 2 / 3 | 1 / 2 / 3 |"
    )
    assert "| HistoQueue, tensorflow | engine 4.00, api 3.00 |" in text
    assert "| the seed: Flask, waitress, model.predict | 3.2 | 500 |" in text
    assert "Disturbed" not in text


def test_a_report_compares_what_stands_around_the_model_with_the_floor(tmp_path: Path) -> None:
    """By CPU time: ours less its ceiling's, over what the same packages take that pass the tile on alone."""
    session = Session(
        ceilings=[Ceiling("tensorflow, a process per core", 224, 1, 200, 2.0, 1.0)],
        measurements=[
            measurement("ours-tensorflow", "16 clients", 100),
            measurement("bare", "16 clients", 250, cpu_ms={"front": 3.0, "celery": 1.0}),
        ],
    )
    lines = written(session, tmp_path).splitlines()
    head = lines.index("| core-ms a tile over the ceiling's |  | × floor |")
    assert lines[head + 2 : head + 4] == ["| HistoQueue, tensorflow | 5.0 | 1.25 |", ""]
    floor = next(line for line in lines if line.startswith("| floor: Flask, Celery"))
    assert floor.split(" | ")[-3:] == ["-", "yes", "0% |"]


def test_a_report_says_what_failed_what_was_wrong_and_what_disturbed_it(tmp_path: Path) -> None:
    """No row looks well that is not."""
    session = Session(
        measurements=[
            measurement("seed", "16 clients", 25, failed=3, foreign_share=0.4),
            measurement("ray", "16 clients", 25, difference=0.5),
        ],
        failures={"litserve": "TimeoutError: no answer"},
    )
    text = written(session, tmp_path)
    assert "NO: 3 failed" in text
    assert "NO: 0 failed" in text
    assert "**Disturbed**: other programs took up to 40%" in text
    assert "- litserve: TimeoutError: no answer" in text


def test_the_json_holds_every_measurement(tmp_path: Path) -> None:
    """So that a later reader can compute other ratios."""
    written(Session(measurements=[measurement("seed", "16 clients", 25)]), tmp_path)
    (path,) = (tmp_path / "results").glob("*.json")
    stored = json.loads(path.read_text())
    assert stored["measurements"][0]["images_a_second"] == 25
    assert stored["machine"]["cores"] == 2


@pytest.mark.parametrize(
    ("answers", "difference"),
    [({"1": [0.1, 0.9]}, 0.1), ({"0": [0.5, 0.5], "1": [0.2, 0.8]}, 0.0), ({"0": [1.0]}, float("inf"))],
)
def test_answers_are_compared_tile_by_tile(answers: dict[str, list[float]], difference: float) -> None:
    """An answer given to the wrong tile, or of the wrong form, is a difference."""
    assert largest_difference(answers, [[0.5, 0.5], [0.2, 0.8]]) == pytest.approx(difference)
