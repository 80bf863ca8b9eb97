"""Turn a session into a dated report: JSON with everything, Markdown with the ratios, a plot."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.figures import middle, ratio, spread
from benchmarks.measure import MOST_FOREIGN_SHARE, Measurement
from benchmarks.run import Ceiling, Plan, Session
from benchmarks.systems import FLOOR

_CEILING = "a process per core"


def write_report(
    session: Session,
    plan: Plan,
    machine: dict[str, str | int],
    kinds: dict[int, str],
    folder: Path,
    now: datetime,
) -> Path:
    """Write the three files of a session; return the Markdown one."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{now:%Y-%m-%d-%H%M}-{plan.model.name}"
    facts = {
        "made_at": f"{now:%Y-%m-%dT%H:%MZ}",
        "model": plan.model.name,
        "machine": machine,
        "tiles": {size: {"kind": kinds[size], "count": len(paths)} for size, paths in plan.tiles.items()},
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "clients": plan.clients,
    }
    (folder / f"{name}.json").write_text(json.dumps({**facts, **asdict(session)}, indent=1) + "\n")
    report = folder / f"{name}.md"
    report.write_text(_markdown(session, plan, facts, name))
    _plot(session, plan, folder / f"{name}.png")
    return report


def _markdown(session: Session, plan: Plan, facts: dict[str, Any], name: str) -> str:
    machine = facts["machine"]
    lines = [
        f"# Benchmark of {facts['made_at']}, {facts['model']}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}, TensorFlow {machine['tensorflow-cpu']}. "
        f"The client runs on the same cores. Median of {facts['rounds']} rounds of {facts['seconds']:g} s; "
        "ratios are what counts, since they were measured in one session.",
        "",
        f"![images a second]({name}.png)",
        "",
    ]
    lines += _disturbance(session)
    for size in plan.tiles:
        lines += [f"## {size} px: {facts['tiles'][size]['kind']}", ""]
        lines += _ceilings(session, size)
        lines += _throughput(session, plan, size)
        lines += _over_the_ceiling(session, plan, size)
        lines += _by_process(session, plan, size)
        lines += _micro_batches(session, plan, size)
        lines += _open_loops(session, plan, size)
    lines += _starts(session, plan)
    lines += _failures(session)
    return "\n".join(lines) + "\n"


def _disturbance(session: Session) -> list[str]:
    shares = [one.foreign_share for one in session.measurements]
    if not shares or max(shares) <= MOST_FOREIGN_SHARE:
        return []
    return [
        f"**Disturbed**: other programs took up to {max(shares):.0%} of the machine "
        f"(median {middle(shares):.0%}). Rates are too low and ratios are blurred; CPU times hold better.",
        "",
    ]


def _ceilings(session: Session, size: int) -> list[str]:
    rows = []
    for name in _unique(one.name for one in session.ceilings):
        ones = [one for one in session.ceilings if (one.name, one.size) == (name, size)]
        rows.append([name, f"{middle([one.images_a_second for one in ones]):.0f}",
                     f"{middle([one.cpu_ms for one in ones]):.1f}",
                     f"{middle([one.start_seconds for one in ones]):.1f}"])  # fmt: skip
    return _table(["ceiling: no server", "images/s", "core-ms a tile", "load s"], rows)


def _throughput(session: Session, plan: Plan, size: int) -> list[str]:
    full = f"{plan.clients} clients"
    best = _of_ceilings(session.ceilings, size, lambda one: one.images_a_second)
    seed = _rate(session, "seed", size, full)
    rows = []
    for system in plan.systems:
        ones = _of(session, system.name, size, full)
        lone = _of(session, system.name, size, "one client")
        if not ones:
            continue
        rate = _rate(session, system.name, size, full)
        against = _own_ceiling(system.name, best)
        rows.append([
            system.title, f"{rate:.1f}", _times(ratio(rate, against)), _times(ratio(rate, seed)),
            f"{middle([one.server_cpu_ms for one in ones]):.1f}",
            f"{middle([one.client_cpu_ms for one in ones]):.1f}",
            _latencies(ones), _latencies(lone),
            f"{middle([one.peak_rss_mib for one in ones]):.0f}",
            f"{max(one.difference for one in [*ones, *lone]):.0e}" if system.has_model else "-",
            _soundness([*ones, *lone]),
            f"{spread([one.images_a_second for one in ones]):.0%}",
        ])  # fmt: skip
    heads = ["system", "images/s", "× ceiling", "× seed", "core-ms a tile", "client's"]
    heads += [f"p50/p95/p99 ms, {full}", "p50/p95/p99 ms, one client", "peak RSS MiB"]
    heads += ["largest difference", "sound", "rounds differ by"]
    return _table(heads, rows)


def _over_the_ceiling(session: Session, plan: Plan, size: int) -> list[str]:
    """Return what our stack takes beside decoding and the model, and how that compares with the floor."""
    full = f"{plan.clients} clients"
    computing = _of_ceilings(session.ceilings, size, lambda one: one.cpu_ms)
    floor = _middle_of(_of(session, FLOOR.name, size, full), lambda one: one.server_cpu_ms)
    rows = []
    for system in plan.systems:
        cost = _middle_of(_of(session, system.name, size, full), lambda one: one.server_cpu_ms)
        if system.name.startswith("ours-") and not math.isnan(cost):
            over = cost - _own_ceiling(system.name, computing)
            rows.append([system.title, f"{over:.1f}", _times(ratio(over, floor))])
    return _table(["core-ms a tile over the ceiling's", "", "× floor"], rows)


def _by_process(session: Session, plan: Plan, size: int) -> list[str]:
    rows = []
    for system in plan.systems:
        ones = _of(session, system.name, size, f"{plan.clients} clients")
        names = sorted({name for one in ones for name in one.cpu_ms})
        costs = {name: middle([one.cpu_ms.get(name, 0.0) for one in ones]) for name in names}
        if costs:
            dearest = sorted(costs.items(), key=lambda item: -item[1])
            words = ", ".join(f"{name} {cost:.2f}" for name, cost in dearest if cost > 0.005)
            rows.append([system.title, words])
    return _table(["system", "core-ms a tile by process"], rows)


def _micro_batches(session: Session, plan: Plan, size: int) -> list[str]:
    """Return how many in a hundred micro-batches had how many images, where the system tells it."""
    full = f"{plan.clients} clients"
    found: dict[str, Counter[int]] = {}
    for system in plan.systems:
        counted: Counter[int] = Counter()
        for one in _of(session, system.name, size, full):
            counted.update(one.micro_batches)
        if counted:
            found[system.title] = counted
    sizes = sorted({size for counted in found.values() for size in counted})
    # Classes end at powers of two.
    heads = [str(size) if size <= 2 else f"{size // 2 + 1} to {size}" for size in sizes]
    rows = [
        [title, *(f"{counted[size] / counted.total():.0%}" for size in sizes)]
        for title, counted in found.items()
    ]
    return _table([f"micro-batches of so many images, {full}", *heads], rows)


def _open_loops(session: Session, plan: Plan, size: int) -> list[str]:
    rows = []
    for system in plan.systems:
        for share in plan.shares:
            ones = _of(session, system.name, size, f"open, {share:.0%} of its throughput")
            if ones:
                rate = middle([one.images_a_second for one in ones])
                late = max(one.sent_late_seconds for one in ones) * 1000
                words = [f"{share:.0%}", f"{rate:.1f}", _latencies(ones), f"{late:.0f}", _soundness(ones)]
                rows.append([system.title, *words])
    heads = ["open loop", "of its throughput", "answered/s", "p50/p95/p99 ms from when a tile was due"]
    heads += ["client late ms", "sound"]
    return _table(heads, rows)


def _starts(session: Session, plan: Plan) -> list[str]:
    rows = []
    for system in plan.systems:
        ones = [one for one in session.starts if one.system == system.name]
        if ones:
            rows.append([system.title, f"{middle([one.seconds for one in ones]):.1f}",
                         f"{middle([one.idle_rss_mib for one in ones]):.0f}"])  # fmt: skip
    return ["## Start and memory", "", *_table(["system", "first answer after s", "idle RSS MiB"], rows)]


def _failures(session: Session) -> list[str]:
    if not session.failures:
        return []
    return ["## Not measured", "", *(f"- {name}: {why}" for name, why in session.failures.items())]


def _of(session: Session, system: str, size: int, load: str) -> list[Measurement]:
    return [one for one in session.measurements if (one.system, one.size, one.load) == (system, size, load)]


def _rate(session: Session, system: str, size: int, load: str) -> float:
    return _middle_of(_of(session, system, size, load), lambda one: one.images_a_second)


def _middle_of(ones: Sequence[Measurement], what: Callable[[Measurement], float]) -> float:
    return middle([what(one) for one in ones]) if ones else math.nan


def _of_ceilings(
    ceilings: Sequence[Ceiling], size: int, what: Callable[[Ceiling], float]
) -> dict[str, float]:
    """Return a figure of a process per core, by runtime."""
    found: dict[str, list[float]] = {}
    for one in ceilings:
        runtime, _, label = one.name.partition(", ")
        if one.size == size and label == _CEILING:
            found.setdefault(runtime, []).append(what(one))
    return {runtime: middle(values) for runtime, values in found.items()}


def _own_ceiling(system: str, figures: dict[str, float]) -> float:
    """Return the ceiling's figure for the runtime that a system uses; every peer uses TensorFlow."""
    runtime = system.split("-")[1] if system.startswith("ours-") else "tensorflow"
    return figures.get(runtime, next(iter(figures.values()), math.nan))


def _latencies(ones: Iterable[Measurement]) -> str:
    known = [one.latency for one in ones if one.latency]
    parts: list[Callable[[Any], float]] = [lambda t: t.p50_ms, lambda t: t.p95_ms, lambda t: t.p99_ms]
    return " / ".join(f"{middle([part(one) for one in known]):.0f}" for part in parts) if known else "-"


def _soundness(ones: Iterable[Measurement]) -> str:
    failed = [one for one in ones if not one.is_sound]
    return "yes" if not failed else f"NO: {sum(one.failed for one in failed)} failed"


def _times(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _plot(session: Session, plan: Plan, path: Path) -> None:
    import matplotlib  # noqa: PLC0415 - slow, and only here

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, panels = pyplot.subplots(1, len(plan.tiles), figsize=(7 * len(plan.tiles), 4.5), squeeze=False)
    for panel, size in zip(panels[0], plan.tiles, strict=True):
        rates = {
            system.title: _rate(session, system.name, size, f"{plan.clients} clients")
            for system in plan.systems
        }
        shown = {title: rate for title, rate in rates.items() if not math.isnan(rate)}
        panel.barh(list(shown), list(shown.values()), color="#6a4c93")
        ceilings = _of_ceilings(session.ceilings, size, lambda one: one.images_a_second)
        for runtime, rate in ceilings.items():
            panel.axvline(rate, linestyle="--", color="#444444")
            label = f"ceiling, {runtime}"
            # Inside, at the bottom: above the frame it would lie in the title.
            where = {"transform": panel.get_xaxis_transform(), "va": "bottom", "ha": "right"}
            panel.text(rate, 0.02, label, rotation=90, fontsize=7, **where)
        panel.invert_yaxis()
        panel.set_title(f"{size} px, {plan.clients} clients")
        panel.set_xlabel("images a second")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
