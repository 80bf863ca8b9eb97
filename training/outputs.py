"""Keep what a finished run says about its test tiles, so that no figure needs the network again."""

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.inference import build_outputs
from training.run_folder import Run
from training.train import NETWORK_NAME

OUTPUTS_NAME: Final = "outputs.npz"


@dataclass(frozen=True)
class Outputs:
    """Logits and pooled features, row by row, of tiles that the weights never saw."""

    #: Row numbers into the tiles.
    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    features: NDArray[np.float32]


def finished_network(run: Run) -> Any:
    """Return the network of a run, a `keras.Model`.

    Raises:
        TrainingError: if training has not finished.
    """
    path = run.folder / NETWORK_NAME
    if not path.is_file():
        raise TrainingError(f"Expected a finished run with {path}. Run `train --resume` first.")
    return keras.models.load_model(path, compile=False)


def write_outputs(run: Run) -> Outputs:
    """Run the finished network over its test tiles and keep the answers in the run's folder.

    Raises:
        TrainingError: if training has not finished.
    """
    logits, features = build_outputs(finished_network(run))(run.images.inputs[run.split.test])
    unfinished = run.folder / "outputs.part.npz"
    np.savez(unfinished, rows=run.split.test, logits=logits, features=features)
    unfinished.replace(run.folder / OUTPUTS_NAME)
    return Outputs(run.split.test, logits, features)


def read_outputs(run: Run) -> Outputs:
    """Return the kept answers of a run's test tiles.

    Raises:
        TrainingError: if there are none yet, or they belong to another split.
    """
    path = run.folder / OUTPUTS_NAME
    if not path.is_file():
        raise TrainingError(f"Expected a finished fold with {path}. Run `train` on the same folder again.")
    with np.load(path, allow_pickle=False) as stored:
        outputs = Outputs(stored["rows"], stored["logits"], stored["features"])
    if not np.array_equal(outputs.rows, run.split.test):
        raise TrainingError(f"Expected the answers of this run's test tiles in {path}. Received others.")
    return outputs
