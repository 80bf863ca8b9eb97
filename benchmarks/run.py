"""The session: ceilings and systems in turn, round by round, so that a slow hour hits all alike."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import IO, Any

from benchmarks.dialects import PARCEL
from benchmarks.environments import python_of
from benchmarks.measure import MOST_FOREIGN_SHARE, Load, Measurement, measure, wait_for_answer
from benchmarks.processes import tree
from benchmarks.systems import BATCHES, ROOT, Place, Running, System, started
from ops.servers import free_port

#: The engine's micro-batch in the ceilings.
CEILING_BATCH = 8
WARM_UP_SECONDS = 1.5


@dataclass(frozen=True)
class Plan:
    """What a session measures."""

    model: Path
    cache: Path
    tiles: dict[int, list[Path]]
    systems: Sequence[System]
    runtimes: Sequence[str]
    cores: int
    rounds: int
    seconds: float
    clients: int
    #: Parts of a system's own throughput at which it is driven in an open loop.
    shares: Sequence[float]
    #: How often a measurement that others disturbed is made again.
    repeats: int
    say: Callable[[str], None]


@dataclass(frozen=True)
class Ceiling:
    """Decode, preprocess and model with no server."""

    name: str
    size: int
    round: int
    images_a_second: float
    cpu_ms: float
    start_seconds: float


@dataclass(frozen=True)
class Start:
    """One start of a system."""

    system: str
    round: int
    #: To the first answer.
    seconds: float
    idle_rss_mib: float


@dataclass
class Session:
    """All that was measured."""

    ceilings: list[Ceiling] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    #: Systems that did not start or answer, and why.
    failures: dict[str, str] = field(default_factory=dict)


def run_session(plan: Plan) -> Session:
    """Measure everything in the plan."""
    session = Session()
    # Removed at the end alone: where much was just deleted, a file system takes longer to make a file, and
    # the next system would pay for it.
    with TemporaryDirectory(prefix="hq-bench-", ignore_cleanup_errors=True) as folder:
        _measure_rounds(plan, session, Path(folder))
    return session


def _measure_rounds(plan: Plan, session: Session, folder: Path) -> None:
    for number in range(1, plan.rounds + 1):
        expected = {size: _measure_ceilings(plan, session, size, number) for size in plan.tiles}
        for system in plan.systems:
            if system.name in session.failures:
                continue
            try:
                _measure_system(plan, session, system, number, expected, folder)
            except (TimeoutError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
                session.failures[system.name] = f"{type(error).__name__}: {error}"[:500]
                plan.say(f"  {system.name}: FAILED, {session.failures[system.name]}")


def _measure_ceilings(plan: Plan, session: Session, size: int, number: int) -> list[list[float]]:
    """Measure one process, and a process per core, of each runtime; return the first one's answers."""
    answers: list[list[list[float]]] = []
    for runtime in plan.runtimes:
        for label, count, threads, gates in (
            ("one process", 1, plan.cores, False),
            ("a process per core", plan.cores, 1, False),
            ("a process per core, with the gates", plan.cores, 1, True),
        ):
            name = f"{runtime}, {label}"
            reports = run_ceiling(plan, plan.tiles[size], runtime, count, threads, gates)
            tiles = sum(report["tiles"] for report in reports)
            ceiling = Ceiling(
                name,
                size,
                number,
                images_a_second=sum(report["tiles"] / report["seconds"] for report in reports),
                cpu_ms=sum(report["cpu_seconds"] for report in reports) * 1000 / tiles,
                start_seconds=max(report["start_seconds"] for report in reports),
            )
            session.ceilings.append(ceiling)
            answers.append(reports[0]["answers"])
            plan.say(
                f"  ceiling {name}, {size} px: {ceiling.images_a_second:.0f}/s, {ceiling.cpu_ms:.1f} core-ms"
            )
    return answers[0]


def run_ceiling(
    plan: Plan, tiles: Sequence[Path], runtime: str, count: int, threads: int, gates: bool
) -> list[dict[str, Any]]:
    """Run so many processes of `benchmarks.ceiling` at the same time; return their reports."""
    order = {
        "model": str(plan.model),
        "tiles": [str(path) for path in tiles],
        "runtime": runtime,
        "threads": threads,
        "gates": gates,
        "batch_size": CEILING_BATCH,
        "seconds": plan.seconds,
    }
    with (plan.cache / "ceiling.log").open("w") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.ceiling"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                text=True,
            )
            for _ in range(count)
        ]
    try:
        for process in processes:
            _write(process, json.dumps(order))
        ready = [_read(process) for process in processes]
        # All are loaded before any begins.
        for process in processes:
            _write(process, "go")
        return [first | _read(process) for first, process in zip(ready, processes, strict=True)]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _write(process: subprocess.Popen[str], line: str) -> None:
    pipe: IO[str] | None = process.stdin
    if pipe is not None:
        pipe.write(line + "\n")
        pipe.flush()


def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise RuntimeError(
            f"A ceiling ended with status {process.wait()}; ceiling.log in the cache says why."
        )
    report: dict[str, Any] = json.loads(line)
    return report


def _measure_system(
    plan: Plan,
    session: Session,
    system: System,
    number: int,
    expected: dict[int, list[list[float]]],
    folder: Path,
) -> None:
    # Short: a Unix socket below it has 107 characters.
    place = Place(free_port(), plan.model, Path(mkdtemp(dir=folder)), free_port(), plan.cache)
    sizes = list(plan.tiles)
    if system.environment is not None:
        python_of(system.environment, plan.cache)  # an installation is no part of a start
    began = time.monotonic()
    with started(system, place) as running:
        seconds = wait_for_answer(system, running, plan.tiles[sizes[0]][0], began)
        idle = sum(usage.rss_bytes for root in running.roots for usage in tree(root)) / 2**20
        session.starts.append(Start(system.name, number, seconds, idle))
        plan.say(f"  {system.name}: first answer after {seconds:.1f} s, {idle:.0f} MiB")
        for size in sizes:
            _measure_size(plan, session, system, running, number, size, expected[size])


def _measure_size(
    plan: Plan,
    session: Session,
    system: System,
    running: Running,
    number: int,
    size: int,
    expected: list[list[float]],
) -> None:
    def once(load: Load, seconds: float) -> Measurement:
        return measure(system, running, load, plan.tiles[size], seconds, expected, number, size)

    def best(load: Load) -> Measurement:
        tries = [once(load, plan.seconds)]
        while tries[-1].foreign_share > MOST_FOREIGN_SHARE and len(tries) <= plan.repeats:
            tries.append(once(load, plan.seconds))
        return min(tries, key=lambda one: one.foreign_share)

    under_way = BATCHES * PARCEL if system.in_batches else plan.clients
    once(Load("warm-up", clients=under_way), WARM_UP_SECONDS)
    full = best(Load(f"{plan.clients} clients", clients=under_way))
    loads = [] if system.in_batches else [Load("one client", clients=1)]
    loads += [
        Load(f"open, {share:.0%} of its throughput", rate=share * full.images_a_second)
        for share in plan.shares
        if full.images_a_second and not system.in_batches
    ]
    for measured in (full, *map(best, loads)):
        session.measurements.append(measured)
        plan.say(_line(measured))


def _line(one: Measurement) -> str:
    times = one.latency
    parts = [
        f"    {one.size} px, {one.load}: {one.images_a_second:.1f}/s",
        f"p50 {times.p50_ms:.0f} ms, p99 {times.p99_ms:.0f} ms" if times else "no answer",
        f"{one.server_cpu_ms:.1f} core-ms (others took {one.foreign_share:.0%})",
    ]
    if not one.is_sound:
        parts.append(f"UNSOUND: {one.failed} failed, {one.difference:.4f} off, {one.first_failure}")
    return ", ".join(parts)
