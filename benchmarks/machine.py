"""What a session ran on, in words that say nothing of whose machine it was."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from worker.cores import usable_cores

_PACKAGES = (
    "tensorflow-cpu",
    "onnxruntime",
    "mnn",
    "keras",
    "numpy",
    "pillow",
    "celery",
    "redis",
    "boto3",
    "gunicorn",
)


def describe() -> dict[str, str | int]:
    """Return processor, cores, memory, system and the versions of what matters."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
