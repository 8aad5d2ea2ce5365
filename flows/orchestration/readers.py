"""Who reads large files in parts and small ones in groups: processes of their own, a job at a time in each.

Threads would wait for each other: of taking records apart, Python does one thing at a time in a process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ladm.tasks.cores import cores
from ladm.tasks.job import Job, Stage, run_jobs
from ladm.tasks.job_processes import JobProcesses
from ladm.tasks.manifest import Manifest
from ladm.tasks.stages import cut, ingest
from ladm.tasks.storage.file_systems import reached_by_others

if TYPE_CHECKING:
    from ladm.flows.dag.plan import Plan

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**29), "MALLOC_TRIM_THRESHOLD_": str(2**29)}
"""Tells glibc to keep what is freed for the next part, which needs as much: new pages cost a tenth of reading."""


class Readers:
    """Processes that read, and this one, if they were not started ahead of their first job.

    Args:
        beside: So many processes, each started when it is needed.
        ahead: So many of them are started now, and this process reads nothing: it has the other stages to do.
    """

    def __init__(self, beside: int, ahead: int = 0) -> None:
        self._reads_here = not ahead
        self._here = threading.Lock()
        own = {name: value for name, value in KEEP_MEMORY.items() if name not in os.environ}
        self._beside = JobProcesses({f"reader {number + 1}": own for number in range(beside)}, 1, [])
        self._beside.start(ahead, ingest.STAGE)

    def run_jobs(self, stage: Stage, job: Job) -> list[Manifest]:
        """Do a job here, unless another is done here already; see `job.run_jobs`."""
        if not (self._reads_here and self._here.acquire(blocking=False)):
            return self._beside.run_jobs(stage, job)
        try:
            return run_jobs(stage, job)
        finally:
            self._here.release()

    def close(self) -> None:
        """End the processes."""
        self._beside.close()


_ahead: ContextVar[Readers | None] = ContextVar("ahead", default=None)


@contextmanager
def started_ahead(plan: Plan) -> Iterator[None]:
    """While open, there are processes to read all of a plan's files; they get ready while Prefect's server comes up."""
    execution = plan.config.execution
    workers = execution.workers or cores()
    ahead = min(workers, jobs_to_read(plan))
    if execution.runner != "threads" or ahead < 2:
        yield
        return
    readers = Readers(workers, ahead)
    token = _ahead.set(readers)
    try:
        yield
    finally:
        _ahead.reset(token)
        readers.close()


def readers_ahead() -> Readers | None:
    """Those that were started ahead of the run that goes on, if any were."""
    return _ahead.get()


def can_read(job: Job) -> bool:
    """Whether a job is theirs: it reads a part of a file, or a group, and they reach the files and the store."""
    files = job.group or ([job.source] if job.part and job.source else [])
    return bool(files) and all(map(reached_by_others, {job.store, *(file.uri for file in files)}))


def jobs_to_read(plan: Plan) -> int:
    """About how many parts and groups the source files are read in, and files that are neither."""
    config = plan.config.ingest
    files = [listed for listed in plan.files if reached_by_others(listed.file.uri)]
    parts = [listed.file.size // config.part_bytes for listed in files if cut.can_be_cut(listed, config)]
    small = sum(listed.file.size for listed in files if listed.file.size < config.pack_bytes)
    return sum(parts) + (small // config.pack_bytes if config.pack_bytes else 0)
