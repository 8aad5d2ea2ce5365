"""How many cores this process may really use: not the machine's, but what affinity and cgroups leave of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, at least 1: those that it is bound to, and no more than a cgroup lets it use.

    A limit of a part of a core is rounded up.

    Args:
        root: Where `proc` and `sys` are.
    """
    try:
        bound = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        bound = os.cpu_count() or 1
    return max(1, min([bound, *(math.ceil(limit) for limit in _limits(root))]))


def small_matrices_on_one_core() -> None:
    """Keep NumPy's matrices to their caller's thread, unless the user has set it otherwise; before NumPy is loaded.

    They are small here. Shared among threads they take up to ten times the CPU time, most of it spent waiting.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _limits(root: Path) -> Iterator[float]:
    """The limits, in cores, of the cgroups that this process is in, and of those that hold these."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder in _with_parents(root / "sys/fs/cgroup", path):
                yield from _limit(folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            for place in (controllers, "cpu"):
                for folder in _with_parents(root / "sys/fs/cgroup" / place, path):
                    yield from _limit(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")


def _with_parents(mounted: Path, path: str) -> Iterator[Path]:
    """A cgroup's folder and those above it. In a container the cgroup may be the mounted folder, whatever its path."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for number in range(len(parts), -1, -1):
        yield mounted.joinpath(*parts[:number])


def _limit(*files: Path) -> Iterator[float]:
    """The cores that a quota and a period allow; nothing where there is no limit."""
    try:
        words = [word for file in files for word in file.read_text().split()]
        quota, period = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):  # "max": none
        return
    if quota > 0 and period > 0:
        yield quota / period
