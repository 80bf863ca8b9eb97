import os
from pathlib import Path

import pytest

from worker.cores import usable_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler allows sixteen."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def limit(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(text)


def own_group(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "self-cgroup"
    path.write_text(text)
    return path


def test_without_a_limit_the_scheduler_decides(tmp_path: Path) -> None:
    """Also where nothing of the kind is mounted."""
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 16
    limit(tmp_path, "max 100000\n")
    assert usable_cores(tmp_path, own_group(tmp_path, "0::/\n")) == 16


@pytest.mark.parametrize(("text", "cores"), [("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1)])
def test_a_containers_share_counts_rounded_down(tmp_path: Path, text: str, cores: int) -> None:
    """What is left of a core is for the engine's parent; one thread there is always."""
    limit(tmp_path, f"{text}\n")
    assert usable_cores(tmp_path, own_group(tmp_path, "0::/\n")) == cores


def test_the_tightest_level_above_the_process_counts(tmp_path: Path) -> None:
    """A service's own group may be unlimited inside a limited slice."""
    limit(tmp_path / "a.slice", "300000 100000")
    limit(tmp_path / "a.slice" / "b.service", "max 100000")
    assert usable_cores(tmp_path, own_group(tmp_path, "0::/a.slice/b.service\n")) == 3


def test_the_older_groups_are_read_too(tmp_path: Path) -> None:
    """Version 1 has the quota and the period in two files, and -1 for none."""
    folder = tmp_path / "cpu" / "docker" / "x"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("400000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    group = own_group(tmp_path, "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n")
    assert usable_cores(tmp_path, group) == 4
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cores(tmp_path, group) == 16
