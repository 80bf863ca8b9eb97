from pathlib import Path

import pytest

from benchmarks.__main__ import build_parser, make_plan
from benchmarks.ceiling import repeat
from benchmarks.dialects import DIALECTS
from benchmarks.environments import PEERS
from benchmarks.measure import Load, Measurement
from benchmarks.models import seed_model
from benchmarks.run import Plan, Session, _measure_size
from benchmarks.systems import PEER_SYSTEMS, Running, System, our_systems
from benchmarks.tiles import gather_tiles
from ops.prepare import newest_bundled_model
from shared.manifest import MANIFEST_NAME, parse_manifest
from worker.engine.decode import decode
from worker.engine.golden import check_golden
from worker.engine.predictor import Predictor


def test_every_system_speaks_a_dialect_and_has_its_lock() -> None:
    """A peer's environment is made from its locked requirements alone."""
    for system in [*our_systems(["tensorflow"]), *PEER_SYSTEMS]:
        assert system.dialect in DIALECTS
        if system.environment is not None:
            assert "--hash=sha256:" in (PEERS / f"{system.environment}.txt").read_text()


def test_drawn_tiles_stand_in_for_real_ones(tmp_path: Path) -> None:
    """Each has its own pixels, and the same command gives the same tiles."""
    model = newest_bundled_model()
    paths = gather_tiles(96, 3, model, tmp_path / "no-data", tmp_path / "cache")
    first = [path.read_bytes() for path in paths]
    assert len(set(first)) == 3
    assert {decode(image, 1 << 20).shape for image in first} == {(96, 96, 3)}
    again = gather_tiles(96, 3, model, tmp_path / "no-data", tmp_path / "cache")
    assert [path.read_bytes() for path in again] == first


def test_a_ceiling_counts_every_answered_tile() -> None:
    """A micro-batch is filled from the beginning again where the tiles run out."""
    seen: list[int] = []

    def answer(images: object) -> list[list[float]]:
        seen.append(len(list(images)))  # type: ignore[call-overload]
        return [[1.0]] * seen[-1]

    done, elapsed = repeat(answer, [b"a", b"b", b"c"], batch_size=2, seconds=0.01)
    assert done == sum(seen)
    assert set(seen) == {2}
    assert elapsed >= 0.01


def test_a_system_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """Before anything is measured."""
    options = build_parser().parse_args(["--only", "ours-tensorflow,magic", "--cache", str(tmp_path)])
    with pytest.raises(SystemExit, match="magic"):
        make_plan(options)


def test_a_quick_session_is_one_short_round(tmp_path: Path) -> None:
    """And nothing of it is repeated."""
    arguments = ["--quick", "--sizes", "64", "--tiles", "2", "--only", "seed", "--data", str(tmp_path)]
    plan = make_plan(build_parser().parse_args([*arguments, "--cache", str(tmp_path)]))
    assert (plan.rounds, plan.repeats, list(plan.tiles)) == (1, 0, [64])
    assert [system.name for system in plan.systems] == ["seed"]


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_seeds_network_is_served_as_a_version_of_its_own(tmp_path: Path) -> None:
    """Of the published version it keeps what does not speak of that one's weights: golden tiles, colours."""
    folder = seed_model(newest_bundled_model(), tmp_path)
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    assert (manifest.input.width, manifest.gates.features) == (224, None)
    assert (manifest.onnx, manifest.mnn) == ("model.onnx", "model.mnn")
    predictor = Predictor(folder / manifest.weights, manifest, threads=1)
    check_golden(predictor, manifest, folder)


@pytest.mark.parametrize(
    ("in_batches", "asked"),
    [(False, [(16, None), (16, None), (1, None), (None, 50.0)]), (True, [(256, None), (256, None)])],
)
def test_a_system_in_batches_has_four_of_them_under_way(
    monkeypatch: pytest.MonkeyPatch, in_batches: bool, asked: list[tuple[int | None, float | None]]
) -> None:
    """And neither a lone tile nor tiles at a given rate: they would wait for others."""
    loads: list[Load] = []

    def measured(_system: object, _running: object, load: Load, *_: object) -> Measurement:
        loads.append(load)
        return Measurement("s", 64, load.name, 1, 100.0, 1, 0, None, None, {}, 0.0, 0.0, 0.0, 0.0, 0.0)

    monkeypatch.setattr("benchmarks.run.measure", measured)
    plan = Plan(Path(), Path(), {64: []}, [], [], 2, 1, 1.0, 16, [0.5], 0, say=lambda _: None)
    system = System("s", "s", "batches", lambda _: [], in_batches=in_batches)
    session = Session()
    _measure_size(plan, session, system, Running("", [], ""), 1, 64, [])
    assert [(load.clients, load.rate) for load in loads] == asked
    # Its rate stands in the same column as everybody's.
    assert session.measurements[0].load == "16 clients"
