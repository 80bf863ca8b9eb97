"""`python -m benchmarks`: measure our stack, its ceiling and its peers in one session, and write a report."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.models import seed_model, with_converted_networks
from benchmarks.report import write_report
from benchmarks.run import Plan, run_session
from benchmarks.systems import PEER_SYSTEMS, our_systems
from benchmarks.tiles import gather_tiles, kind_of_tiles
from ops.prepare import newest_bundled_model
from worker.cores import usable_cores
from worker.engine.runtime import REFERENCE

HERE = Path(__file__).parent
EXAMPLES = """
examples:
  python -m benchmarks --quick                          some ten minutes: one short round
  python -m benchmarks                                  the whole session, two hours or more
  python -m benchmarks --model seed                     the seed's network instead of the shipped one
  python -m benchmarks --only ours-tensorflow,litserve  some systems; `none` measures the ceilings alone
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a session; return the exit status: 1 where a system failed or answered wrongly."""
    options = build_parser().parse_args(arguments)
    plan = make_plan(options)
    session = run_session(plan)
    kinds = {size: kind_of_tiles(size, options.data) for size in plan.tiles}
    path = write_report(session, plan, describe(), kinds, options.results, datetime.now(UTC))
    print(f"the report is {path}")
    unsound = [one for one in session.measurements if not one.is_sound]
    return 1 if session.failures or unsound else 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one round of 3 s, nothing repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each load lasts")
    parser.add_argument("--repeats", type=int, default=2, help="how often a disturbed run is made again")
    parser.add_argument("--clients", type=int, default=16, help="clients of the closed loop")
    parser.add_argument(
        "--shares", type=_numbers, default=[0.5, 0.8], help="open loop: parts of the throughput"
    )
    parser.add_argument("--sizes", type=_numbers, default=[224, 768], help="sides of the tiles, in pixels")
    parser.add_argument("--tiles", type=int, default=24, help="how many different tiles of each size")
    parser.add_argument("--only", help="names of systems, with commas between them")
    parser.add_argument("--runtimes", default="tensorflow,onnxruntime,mnn", help="the engine's")
    parser.add_argument("--model", default="shipped", help="shipped, seed, or a version's folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="real tiles")
    parser.add_argument(
        "--cache", type=Path, default=HERE / ".cache", help="environments and tiles are kept there"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the report goes")
    return parser


def make_plan(options: argparse.Namespace) -> Plan:
    """Turn the command line into what is measured.

    Raises:
        SystemExit: if a system is named that there is not.
    """
    cache = options.cache.resolve()
    shipped = newest_bundled_model()
    models = {"shipped": lambda: shipped, "seed": lambda: seed_model(shipped, cache)}
    model = models.get(options.model, lambda: Path(options.model).resolve())()
    runtimes = options.runtimes.split(",")
    if set(runtimes) - {REFERENCE}:
        model = with_converted_networks(model, cache)
    systems = [*our_systems(runtimes), *PEER_SYSTEMS]
    if options.only is not None:
        wanted = [name for name in options.only.split(",") if name != "none"]
        if unknown := set(wanted) - {system.name for system in systems}:
            raise SystemExit(f"error: expected names of {[one.name for one in systems]}, received {unknown}")
        systems = [system for system in systems if system.name in wanted]
    sizes = [int(size) for size in options.sizes]
    return Plan(
        model=model,
        cache=cache,
        tiles={size: gather_tiles(size, options.tiles, model, options.data, cache) for size in sizes},
        systems=systems,
        runtimes=runtimes,
        cores=usable_cores(),
        rounds=1 if options.quick else options.rounds,
        seconds=3.0 if options.quick else options.seconds,
        clients=options.clients,
        shares=options.shares,
        repeats=0 if options.quick else options.repeats,
        say=lambda line: print(line, flush=True),
    )


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part]


if __name__ == "__main__":
    sys.exit(main())
