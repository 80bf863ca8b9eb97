"""Choose what runs the network: TensorFlow is the truth, anything faster must first give the same answers."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from shared.errors import InvalidModel
from shared.manifest import Manifest
from worker.engine.golden import check_golden
from worker.engine.mnn_library import asks_for_executable_stack, installed
from worker.engine.pipeline import Model
from worker.gpu import NoGpu, has_device

#: What every machine that can run an engine has.
REFERENCE: Final = "tensorflow"
#: What `auto` tries on a processor, by CPU time a tile (docs/explanation/performance.md).
FASTEST_FIRST: Final = ("mnn", "onnxruntime")


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


class NotThere(CannotRun):
    """It is not installed, or the version was published without a network for it."""


def load(wanted: str, order: Order) -> Loaded:
    """Return a proven predictor: the wanted runtime's, or TensorFlow's with the reason.

    `auto` takes the first of `FASTEST_FIRST` that can run this version; one that is not there costs no word.

    Raises:
        InvalidModel: if TensorFlow too cannot load the version, or does not reproduce its golden tiles.
        NoGpu: if the order needs one and TensorFlow can use none.
    """
    warnings: list[str] = []
    for runtime in _candidates(wanted, order):
        try:
            return Loaded(_proven(_LOADERS[runtime], order), runtime, "; ".join(warnings) or None)
        except NotThere as error:
            if wanted != "auto":
                warnings.append(str(error))
        except CannotRun as error:
            warnings.append(str(error))
        except InvalidModel as error:
            # It was converted and proven once, so this is always worth a word.
            warnings.append(f"{runtime} does not answer as this version must: {error}")
        except Exception as error:  # noqa: BLE001 - whatever ails its library, another one may serve
            warnings.append(f"{runtime} fails: {type(error).__name__}: {error}")
    return Loaded(_proven(_load_tensorflow, order), REFERENCE, "; ".join(warnings) or None)


def _candidates(wanted: str, order: Order) -> tuple[str, ...]:
    """Return what to try before TensorFlow; all of it is for processors alone."""
    if order.needs_gpu or wanted == REFERENCE:
        return ()
    if wanted != "auto":
        return (wanted,)
    return () if _has_gpu() else FASTEST_FIRST


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
    path = _converted(order, order.manifest.onnx, "onnxruntime", "ONNX Runtime")
    try:
        from worker.engine.onnx_predictor import OnnxPredictor  # noqa: PLC0415 - absent where not installed
    except ImportError as error:
        raise CannotRun(f"ONNX Runtime cannot be loaded: {error}") from error
    return OnnxPredictor(path, order.manifest, order.threads)


def _load_mnn(order: Order) -> Predictor:
    path = _converted(order, order.manifest.mnn, "MNN", "MNN")
    if any(asks_for_executable_stack(library) for library in installed()):
        raise CannotRun("MNN asks for an executable stack: python worker/engine/mnn_library.py mends it.")
    from worker.engine.mnn_predictor import MnnPredictor  # noqa: PLC0415 - only where it is to run

    try:
        return MnnPredictor(path, order.manifest, order.threads)
    except ImportError as error:
        raise CannotRun(f"MNN cannot be loaded: {error}") from error


def _converted(order: Order, name: str | None, package: str, title: str) -> Path:
    """Return where the converted network is, if the version has it and the package is there to run it."""
    if name is None:
        raise NotThere(f"This version was published without a network for {title}.")
    if find_spec(package) is None:
        raise NotThere(f"{title} is not installed.")
    return order.folder / name


_LOADERS: Final[dict[str, Callable[[Order], Predictor]]] = {
    REFERENCE: _load_tensorflow,
    "mnn": _load_mnn,
    "onnxruntime": _load_onnx,
}
