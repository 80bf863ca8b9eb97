"""Which network is served: a published version's folder, or the seed's architecture made here."""

import shutil
from pathlib import Path

from shared.manifest import (
    MANIFEST_NAME,
    GoldenTile,
    InputSpec,
    Manifest,
    digest_of_file,
    parse_manifest,
)

SEED_VERSION = "0.0.1"
_WEIGHTS = "model.keras"


def seed_model(template: Path, cache: Path) -> Path:
    """Return a version folder with the seed's network (three convolutions at 224 px), made if need be.

    Its weights are drawn from a fixed seed and not trained; its temperature spreads the probabilities, so
    that an answer given to the wrong tile shows. Gates and golden tiles are the template's.
    """
    folder = cache / "seed-model"
    if not (folder / MANIFEST_NAME).is_file() or (folder / "unfinished").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write(folder, template)
    return folder


def with_converted_networks(model: Path, cache: Path) -> Path:
    """Return the version's folder, or a copy with the converted networks where it lacks one."""
    manifest = parse_manifest((model / MANIFEST_NAME).read_bytes())
    if manifest.onnx is not None and manifest.mnn is not None:
        return model
    from training.convert import add_converted  # noqa: PLC0415 - seconds, and only here

    folder = cache / "converted" / model.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    add_converted(folder)
    return folder


def _write(folder: Path, template: Path) -> None:
    import keras  # noqa: PLC0415 - seconds, and only here

    from training.architecture import build_model  # noqa: PLC0415
    from training.convert import add_converted  # noqa: PLC0415
    from training.experiment import NetworkPlan  # noqa: PLC0415

    published = parse_manifest((template / MANIFEST_NAME).read_bytes())
    keras.utils.set_random_seed(1)
    spec = InputSpec(width=224, height=224, resample="bilinear")
    plan = NetworkPlan(filters=(32, 64, 128), convolutions=(1, 1, 1), dense_units=128)
    build_model(spec, plan, len(published.classes)).save(folder / _WEIGHTS)
    for tile in published.golden:
        shutil.copyfile(template / tile.file, folder / tile.file)
    draft = published.model_copy(
        update={
            "version": SEED_VERSION,
            "weights": _WEIGHTS,
            "onnx": None,
            "mnn": None,
            "input": spec,
            # Statistics of another network's features; this one's mean nothing.
            "gates": published.gates.model_copy(update={"features": None}),
            "files": tuple(digest_of_file(path) for path in sorted(folder.iterdir())),
            "metrics": {},
            "training": {},
        }
    )
    unfinished = folder / "unfinished"
    unfinished.write_text("")
    (folder / MANIFEST_NAME).write_text(_with_answers(draft, folder).model_dump_json(indent=1))
    add_converted(folder)
    unfinished.unlink()


def _with_answers(draft: Manifest, folder: Path) -> Manifest:
    import numpy as np  # noqa: PLC0415

    from worker.engine.golden import golden_probabilities  # noqa: PLC0415
    from worker.engine.predictor import Predictor  # noqa: PLC0415

    predictor = Predictor(folder / draft.weights, draft, threads=0)
    even = golden_probabilities(predictor, draft.model_copy(update={"temperature": 1.0}), folder)
    logits = np.log(even)
    spread = float((logits - logits.mean(axis=0)).std())
    spread_out = draft.model_copy(update={"temperature": max(spread, 1e-6)})
    rows = golden_probabilities(predictor, spread_out, folder)
    golden = tuple(
        GoldenTile(file=tile.file, probabilities=tuple(round(float(value), 6) for value in row))
        for tile, row in zip(draft.golden, rows, strict=True)
    )
    return spread_out.model_copy(update={"golden": golden})
