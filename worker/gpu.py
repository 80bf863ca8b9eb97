"""Whether a graphics card is here, for a worker that is not to run without one."""

from pathlib import Path
from typing import Final

#: What NVIDIA's driver shows: on Linux, inside a container, and in WSL2, where Windows has the driver.
DEVICES: Final = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
#: How an engine says it to its parent.
NO_GPU: Final = "NO_GPU"


class NoGpu(Exception):
    """REQUIRE_GPU is set, and there is none that could be used; its text says what was looked for."""


def has_device() -> bool:
    """Tell whether the driver of a graphics card is to be seen; TensorFlow may still be unable to use it."""
    return any(path.exists() for path in DEVICES)


def check_device() -> None:
    """Look for what needs no library and no server, so that a wrong machine is said at once.

    Raises:
        NoGpu: if no driver is to be seen.
    """
    if not has_device():
        raise NoGpu(
            "REQUIRE_GPU: expected an NVIDIA GPU. Received: a machine or a container that shows none; "
            "give it one (docs/how-to/gpu.md), or run the worker for CPUs"
        )
