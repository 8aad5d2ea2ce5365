"""The cores that are really ours: affinity, and limits of cgroups of both versions, in a container or outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ladm.tasks.cores import cores, small_matrices_on_one_core


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 128 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(128)), raising=False)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 128),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 128),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/a/b\n",
          "sys/fs/cgroup/a/cpu.max": "150000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 1"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n",
          "sys/fs/cgroup/a/b/cpu.max": "50000 100000", "sys/fs/cgroup/cpu.max": "800000 100000"}, 1),
        ({"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "5:cpu,cpuacct:/kube/pod\n3:memory:/kube\n",
          "sys/fs/cgroup/cpu,cpuacct/kube/pod/cpu.cfs_quota_us": "600000\n",
          "sys/fs/cgroup/cpu,cpuacct/kube/pod/cpu.cfs_period_us": "100000\n"}, 6),
        ({"proc/self/cgroup": "5:cpuacct,cpu:/kube/pod\n",
          "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"proc/self/cgroup": "5:cpu:/\n",
          "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 128),
        ({"proc/self/cgroup": "nonsense\n", "sys/fs/cgroup/cpu.max": ""}, 128),
    ],
)  # fmt: skip
def test_limits_of_cgroups_count(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert cores(tree(tmp_path, files)) == expected


def test_affinity_counts_whatever_the_cgroup_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}
    assert cores(tree(tmp_path, files)) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores(tmp_path) == 3


def test_a_process_on_one_core_takes_one(tmp_path: Path) -> None:
    """DuckDB's threads, and the tasks of a run at once."""
    script = f"""
import os
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from ladm.tasks.cores import cores
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store
with duck.connect(Store({str(tmp_path)!r})) as connection:
    print(cores(), connection.execute("select current_setting('threads')").fetchone()[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_small_matrices_keep_to_one_core_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    small_matrices_on_one_core()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    small_matrices_on_one_core()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "4"
