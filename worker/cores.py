"""How many cores this process really has: what the scheduler allows, cut down to the container's share."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of threads that can run at the same time: at least 1, a share rounded down.

    A container with `--cpus 2` on a machine of 64 sees 64 cores; 64 threads would be stopped for most of
    every tenth of a second.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(share) for share in _shares(cgroup, own))]))


def _shares(cgroup: Path, own: Path) -> list[float]:
    """Return the cores that each group above this process may use, where it is limited."""
    folders = [cgroup, cgroup / "cpu"]
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        # Version 2 has one hierarchy and names no controller; the limit of every level counts.
        if controllers == "" or "cpu" in controllers.split(","):
            root = cgroup if controllers == "" else cgroup / "cpu"
            folder = root / path.lstrip("/")
            folders += [level for level in (folder, *folder.parents) if level.is_relative_to(root)]
    found = (_share(folder) for folder in dict.fromkeys(folders))
    return [share for share in found if share is not None]


def _share(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    if not period:
        quota, period = (
            _read(folder / "cpu.cfs_quota_us").strip(),
            _read(folder / "cpu.cfs_period_us").strip(),
        )
    # "max" and -1 stand for no limit.
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
