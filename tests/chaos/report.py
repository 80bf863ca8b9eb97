"""What a run found, as JSON for a machine and as Markdown for a reader.

python -m tests.chaos.report FOLDER     print the page of the runs whose figures lie there
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import psutil
import pytest

from tests.chaos.history import History
from tests.chaos.plan import SEED
from tests.chaos.system import System

#: The environment variable that names the folder for the figures; nothing is written without it.
CHAOS_REPORT = "CHAOS_REPORT"
ROOT = Path(__file__).resolve().parents[2]


def _commit() -> str:
    """Return the commit, marked where the files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"


def _machine() -> str:
    gibibytes = psutil.virtual_memory().total / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    where = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{cores} cores, {gibibytes:.0f} GiB, {where}"


@dataclass(frozen=True)
class Figures:
    """What one scenario measured, and where, when and with which seed."""

    scenario: str
    values: dict[str, Any]
    seed: int = SEED
    commit: str = field(default_factory=_commit)
    machine: str = field(default_factory=_machine)
    ended_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def outcomes(history: History, system: System, known_before: set[str]) -> dict[str, Any]:
    """Return what became of the jobs, by what clients were told and by what the ledger still holds."""
    return {
        "accepted": len(history.accepted),
        "terminal": len(history.ended),
        "lost": len(history.lost()),
        "stuck": len(system.open_jobs()),
        "contradictory": len(history.contradictory),
        "never asked for": len(system.known_jobs() - set(history.accepted) - known_before),
        "wrong": len(history.wrong()),
        "poison": history.poison(),
        "run more than once": history.repeated(),
        "from 202 to outcome, s": spread([end.seconds for end in history.ended.values()]),
        "slowest answer to a submission, s": round(history.slowest_seconds, 2),
        "refused": dict(history.refused),
    }


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return the middle, the 95th percentile and the worst of some times."""
    if len(seconds) < 2:
        return {"p50": round(max(seconds, default=0), 2), "p95": round(max(seconds, default=0), 2)} | {
            "worst": round(max(seconds, default=0), 2)
        }
    cuts = quantiles(seconds, n=20, method="inclusive")
    return {"p50": round(cuts[9], 2), "p95": round(cuts[18], 2), "worst": round(max(seconds), 2)}


def publish(figures: Figures, capsys: pytest.CaptureFixture[str] | None = None) -> None:
    """Print the figures past pytest, and write them down where `CHAOS_REPORT` says."""
    rows = [f"  {name}: {_shown(value)}" for name, value in figures.values.items()]
    text = "\n".join([f"\n{figures.scenario}, seed {figures.seed}", *rows])
    if capsys:
        with capsys.disabled():
            print(text)
    else:
        print(text)
    if folder := os.environ.get(CHAOS_REPORT):
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = figures.scenario.replace(" ", "-").replace(",", "")
        (Path(folder) / f"{name}.json").write_text(json.dumps(asdict(figures), indent=2) + "\n")


def page(folder: Path) -> str:
    """Return one Markdown page of the figures in a folder: outcomes side by side, then each scenario."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    parts = [_side_by_side([run for run in runs if "accepted" in run["values"]])]
    for run in runs:
        about = f"{run['ended_at']}, commit `{run['commit']}`, seed {run['seed']}, {run['machine']}"
        rows = [f"| {name} | {_shown(value)} |" for name, value in run["values"].items()]
        parts.append("\n".join([f"### {run['scenario']}\n\n{about}\n", "| | |", "|---|---|", *rows]))
    return "\n\n".join(part for part in parts if part)


def _side_by_side(runs: list[dict[str, Any]]) -> str:
    """Return ours and plain Celery's outcomes in one table."""
    if not runs:
        return ""
    names = ("accepted", "terminal", "lost", "stuck", "contradictory", "never asked for", "wrong")
    head = "| | " + " | ".join(run["scenario"] for run in runs) + " |"
    rows = [
        f"| {name} | " + " | ".join(str(run["values"].get(name, "")) for run in runs) + " |" for name in names
    ]
    return "\n".join([head, "|---" * (len(runs) + 1) + "|", *rows])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    print(page(Path(sys.argv[1])))
