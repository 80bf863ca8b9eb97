"""Keep the state of an unfinished run on disk, whole or not at all."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

CHECKPOINT_NAME: Final = "checkpoint.npz"
LOCK_NAME: Final = ".lock"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next epoch starts from."""

    #: The value of every variable of the run, in the order in which the trainer names them.
    variables: list[NDArray[Any]]
    #: One record of figures per finished epoch.
    history: list[dict[str, float]]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint; a crash in the middle leaves the one before.

    Raises:
        TrainingError: if it cannot be written: the disk is full, or the folder is gone.
    """
    arrays: dict[str, Any] = {
        f"variable-{number:04}": array for number, array in enumerate(checkpoint.variables)
    }
    unfinished = folder / "checkpoint.part.npz"
    try:
        np.savez(unfinished, history=np.array(json.dumps(checkpoint.history)), **arrays)
        unfinished.replace(folder / CHECKPOINT_NAME)
    except OSError as error:
        raise TrainingError(
            f"Expected room for a checkpoint in {folder}. Received: {error}. Make room:"
            " `train --resume` goes on after the last epoch that was kept."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)  # half a checkpoint would take room and say nothing


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep every other process from training in the folder; the system lets go of it with this one's end.

    Raises:
        TrainingError: if another one does.
    """
    with (folder / LOCK_NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"Expected {folder} for this process alone. Another one trains in it: let it, or end it."
            ) from error
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a file that says what a run is, or that something is finished: all of it, or none.

    Raises:
        TrainingError: if it cannot be written.
    """
    # Processes that share a run may write the same file at once.
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise TrainingError(f"Expected room for {path}. Received: {error}. Make room, and go on.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the folder's checkpoint, or None where there is none yet."""
    path = folder / CHECKPOINT_NAME
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        variables = [stored[key] for key in sorted(stored.files) if key.startswith("variable-")]
        return Checkpoint(variables, json.loads(str(stored["history"])))
