"""Load one model version after the other as the engine does, and say of each what came of it.

python -m tests.torture.load_models FOLDER ...     prints a line of JSON for each
"""

import json
import resource
import sys
from pathlib import Path

from shared.errors import HistoQueueError
from worker.engine.__main__ import _load


def verdict(folder: str) -> dict[str, object]:
    """Return the code that the parent would be told, or `ready`, and the peak of the memory so far."""
    options = {
        "folder": folder,
        "runtime": "tensorflow",
        "threads": 1,
        "decode_threads": 1,
        "max_batch_size": 1,
        "needs_gpu": False,
    }
    try:
        _load(options)
    except HistoQueueError as error:
        said = error.code
    else:
        said = "ready"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"name": Path(folder).name, "said": said, "peak_kib": peak}


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(json.dumps(verdict(argument)), flush=True)
