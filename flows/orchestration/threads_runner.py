"""Tasks in threads of this process, which holds the model, or has a process for each of several GPUs that it sees.

Parts of large files and groups of small ones are read in processes of their own, too (`readers.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.utilities.annotations import quote

from ladm.flows.orchestration.readers import Readers, can_read, readers_ahead
from ladm.tasks.cores import cores
from ladm.tasks.job import Job, Stage
from ladm.tasks.job_processes import JobProcesses
from ladm.tasks.manifest import Manifest
from ladm.tasks.stage import doing

JOBS_A_MODEL = 3
"""On a CPU a model does two passes at once; and while one job is written down and another begun, a third is at hand."""


def gpus_of(device: str) -> list[str]:
    """The GPUs that a process each is to be started for; none where one process does all.

    `cuda` is all that this process sees, by what `CUDA_VISIBLE_DEVICES` leaves of them; `cuda:1` is that one.
    """
    if device != "cuda":
        return []
    from ladm.tasks.scorers.devices import visible_gpus  # noqa: PLC0415  (torch, which alone knows)

    gpus = visible_gpus()
    return gpus if len(gpus) > 1 else []


def gpu_processes(gpus: Sequence[str], used: list[str]) -> JobProcesses:
    """A process for each GPU, which sees it alone, as if the machine had no other, and loads the model once.

    Args:
        gpus: Of each GPU, what `CUDA_VISIBLE_DEVICES` is for its process.
        used: Gets those that jobs are given to, as `scorer.device` would name them.
    """
    environments = {f"cuda:{number}": {"CUDA_VISIBLE_DEVICES": gpu} for number, gpu in enumerate(gpus)}
    return JobProcesses(environments, max(1, cores() // len(gpus)), used)


@contextmanager
def threads_runner(workers: int, models: int | None, device: str) -> Iterator[Threads]:
    """While open, threads of this process.

    Args:
        workers: Tasks of a CPU stage at once.
        models: GPUs to use, if not all.
        device: Where the model is to be.
    """
    threads = Threads(workers, models, device)
    try:
        yield threads
    finally:
        threads.close()


class Threads:
    """Threads of this process."""

    same_process = True

    def __init__(self, workers: int, models: int | None, device: str) -> None:
        self.workers = workers
        self.devices: list[str] = []
        self._most, self._device = models, device

    @property
    def models(self) -> int:
        """Tasks of a stage that holds the model at once."""
        return JOBS_A_MODEL * (len(self._processes) if self._processes else 1)

    @cached_property
    def _processes(self) -> JobProcesses | None:
        """Made when a job first needs the model: until then nobody has to ask PyTorch which GPUs there are."""
        gpus = gpus_of(self._device)[: self._most]
        if len(gpus) < 2:
            return None
        return gpu_processes(gpus, self.devices)

    @cached_property
    def _readers(self) -> Readers:
        """Made when there is a first part or group of files to read, unless they were started ahead."""
        return readers_ahead() or Readers(self.workers - 1)

    def submit(self, task: Task[..., Any], job: Job, *, holds_model: bool) -> PrefectFuture[Any]:
        """Start a task. Quoted, so that Prefect does not search the job's inputs for futures."""
        given = quote(job.as_dict())
        if self.workers > 1 and can_read(job):
            return _submitted(task, given, self._readers.run_jobs)
        if not holds_model:
            return task.submit(given)
        if self._processes is None:
            self.devices[:] = [self._device]
            return task.submit(given)
        return _submitted(task, given, self._processes.run_jobs)

    def close(self) -> None:
        """End the processes, if there are any."""
        for name in ("_processes", "_readers"):
            if processes := self.__dict__.get(name):
                processes.close()


def _submitted(task: Task[..., Any], given: Any, run: Callable[[Stage, Job], list[Manifest]]) -> PrefectFuture[Any]:
    """Start a task whose job is done elsewhere."""
    token = doing.set(run)
    try:
        return task.submit(given)
    finally:
        doing.reset(token)
