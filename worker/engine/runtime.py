"""Choose what runs the network: TensorFlow is the truth, anything faster must first give the same answers."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from shared.errors import InvalidModel
from shared.manifest import Manifest
from worker.engine.golden import check_golden
from worker.engine.pipeline import Model
from worker.gpu import NoGpu, has_device

#: What every machine that can run an engine has.
REFERENCE: Final = "tensorflow"


class Predictor(Model, Protocol):
    """A loaded model that can be warmed up."""

    def warm_up(self) -> None:
        """Make the first job as fast as the others."""
        ...


@dataclass(frozen=True)
class Order:
    """Which model to load, and how."""

    folder: Path
    manifest: Manifest
    threads: int
    #: Micro-batch sizes that will come; a runtime may prepare for each.
    buckets: tuple[int, ...]
    #: Rather nothing than a processor.
    needs_gpu: bool = False


@dataclass(frozen=True)
class Loaded:
    """A predictor that has reproduced its golden tiles."""

    predictor: Predictor
    runtime: str
    #: Why it is not the runtime that was asked for; None where it is.
    warning: str | None = None


class CannotRun(Exception):
    """This runtime cannot run this version here; its text says why."""


def load(wanted: str, order: Order) -> Loaded:
    """Return a proven predictor: the wanted runtime's, or TensorFlow's with the reason.

    `auto` takes ONNX Runtime where it can run this version, and says nothing where it is not there.

    Raises:
        InvalidModel: if TensorFlow too cannot load the version, or does not reproduce its golden tiles.
        NoGpu: if the order needs one and TensorFlow can use none.
    """
    # ONNX Runtime is installed for processors alone.
    runtime, warns = (REFERENCE, False) if order.needs_gpu else _choose(wanted)
    if runtime != REFERENCE:
        try:
            return Loaded(_proven(_LOADERS[runtime], order), runtime)
        except CannotRun as error:
            warning = str(error) if warns else None
        except InvalidModel as error:
            # It was converted and proven once, so this is always worth a word.
            warning = f"{runtime} does not answer as this version must: {error}"
        return Loaded(_proven(_load_tensorflow, order), REFERENCE, warning)
    return Loaded(_proven(_load_tensorflow, order), REFERENCE)


def _choose(wanted: str) -> tuple[str, bool]:
    """Return the runtime to try, and whether its absence is worth a warning."""
    if wanted != "auto":
        return wanted, True
    return (REFERENCE if _has_gpu() else "onnxruntime"), False


def _has_gpu() -> bool:
    """Tell whether TensorFlow would find a graphics card and its libraries here."""
    return has_device() and find_spec("nvidia") is not None


def _proven(loader: Callable[[Order], Predictor], order: Order) -> Predictor:
    predictor = loader(order)
    predictor.warm_up()
    check_golden(predictor, order.manifest, order.folder)
    return predictor


def _load_tensorflow(order: Order) -> Predictor:
    # Imported here: it takes seconds and half a gigabyte, which no other runtime should cost.
    from worker.engine.predictor import Predictor as TensorFlowPredictor  # noqa: PLC0415
    from worker.engine.predictor import usable_gpus  # noqa: PLC0415

    if order.needs_gpu and usable_gpus() == 0:
        raise NoGpu(
            "REQUIRE_GPU: expected a GPU that TensorFlow can use. Received: none; the driver may be too old, "
            "or these are the packages for CPUs"
        )
    weights = order.folder / order.manifest.weights
    return TensorFlowPredictor(weights, order.manifest, order.threads, order.buckets)


def _load_onnx(order: Order) -> Predictor:
    if order.manifest.onnx is None:
        raise CannotRun("This version was published without a converted network.")
    if find_spec("onnxruntime") is None:
        raise CannotRun("ONNX Runtime is not installed.")
    from worker.engine.onnx_predictor import OnnxPredictor  # noqa: PLC0415 - absent where not installed

    return OnnxPredictor(order.folder / order.manifest.onnx, order.manifest, order.threads)


_LOADERS: Final[dict[str, Callable[[Order], Predictor]]] = {
    REFERENCE: _load_tensorflow,
    "onnxruntime": _load_onnx,
}
