"""What a piece of work costs: wall and CPU time, and the peak memory of a process with all that it starts.

Every variant of a benchmark runs in a process of its own, which is this benchmark called again, and answers with one
line of JSON. Times are taken inside it around the work alone, or outside it around the whole process; memory is that of
the process tree, each shared page counted once (PSS), looked at up to ten times a second: a look at much memory takes
its time, and all looks together may take one part in twenty of it.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Cost:
    """What some work took."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, of all threads, and of processes that it started and waited for."""
    peak: int
    """Bytes."""


@dataclass(frozen=True)
class Answer:
    """A process that ended: what it cost from its start to its end, and what it said."""

    whole: Cost
    said: dict[str, Any]

    @property
    def work(self) -> Cost:
        """The cost of the work alone, as the process said it (`timed`)."""
        return Cost(self.said["wall"], self.said["cpu"], self.whole.peak)


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds of the block, `wall` and `cpu`, filled in when it ends; with those of processes that ended meanwhile."""
    seconds: dict[str, float] = {}
    wall, cpu = time.perf_counter(), _cpu_seconds()
    yield seconds
    seconds |= {"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu}


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def call(
    script: str,
    arguments: Sequence[object],
    environment: Mapping[str, str] | None = None,
    *,
    watched: bool = True,
) -> Answer:
    """Run a Python script, or an installed command, in a fresh process to its end.

    Args:
        script: Path of the script.
        arguments: Its arguments.
        environment: Variables to set beside this process's own.
        watched: Whether its memory is looked at, and the CPU time of what it does not wait for; that takes some of the
            cores on which it works, and stops it while it wants memory.

    Raises:
        RuntimeError: It failed; its own errors are on stderr.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    watch = _Watch(process.pid) if watched else None
    assert process.stdout is not None
    out = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if watch:
        watch.stop()
    if process.returncode:
        raise RuntimeError(f"{script} {' '.join(map(str, arguments))} ended with {process.returncode}: {out[-500:]}")
    # `usage` has what was waited for, to the last; what was not (a fork server's workers) was only watched.
    cpu = usage.ru_utime + usage.ru_stime
    whole = Cost(wall, max(cpu, watch.cpu) if watch else cpu, watch.peak if watch else 0)
    return Answer(whole, json.loads(out) if out.strip().startswith("{") else {})


class _Watch:
    """Watches a process tree from a thread until it is told to stop."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._cpu: dict[tuple[int, float], float] = {}
        """(pid, when it started) → seconds it had taken when it was last seen."""
        self._root = psutil.Process(pid)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def cpu(self) -> float:
        """Seconds of all processes seen, each as far as it was seen."""
        return sum(self._cpu.values())

    def _watch(self) -> None:
        looked, took = 0.0, 0.0
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                return
            started, total = time.perf_counter(), 0
            memory = started - looked > 20 * took
            for process in processes:
                try:
                    times = process.cpu_times()
                    self._cpu[process.pid, process.create_time()] = times.user + times.system
                    total += process.memory_full_info().pss if memory else 0
                except psutil.Error:  # ended meanwhile
                    continue
            self.peak = max(self.peak, total)
            if memory:
                looked = time.perf_counter()
                took = looked - started

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def median_cost(costs: Sequence[Cost]) -> Cost:
    """The medians of the times, and the largest peak."""
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        max(cost.peak for cost in costs),
    )


def cells(cost: Cost) -> list[str]:
    """Wall time, CPU time and peak memory for a table."""
    return [f"{cost.wall:,.2f} s", f"{cost.cpu:,.2f} s", f"{cost.peak / 2**20:,.0f} MiB"]


def memory_of_this(name: str) -> int:
    """Bytes that Linux tells of this process: `VmRSS`, what it holds, or `VmHWM`, the most that it ever held.

    Not `ru_maxrss`, which a process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:"))) * 1024
