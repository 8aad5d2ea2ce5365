"""Tasks in threads of this process, which holds the model, or has a process for each of several GPUs that it sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.utilities.annotations import quote

from ladm.tasks.gpu_processes import GpuProcesses
from ladm.tasks.job import Job
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
    def _processes(self) -> GpuProcesses | None:
        """Made when a job first needs the model: until then nobody has to ask PyTorch which GPUs there are."""
        gpus = gpus_of(self._device)[: self._most]
        if len(gpus) < 2:
            return None
        return GpuProcesses(gpus, self.devices)

    def submit(self, task: Task[..., Any], job: Job, *, holds_model: bool) -> PrefectFuture[Any]:
        """Start a task. Quoted, so that Prefect does not search the job's inputs for futures."""
        given = quote(job.model_dump(mode="json"))
        if not holds_model:
            return task.submit(given)
        if self._processes is None:
            self.devices[:] = [self._device]
            return task.submit(given)
        token = doing.set(self._processes.run_jobs)
        try:
            return task.submit(given)
        finally:
            doing.reset(token)

    def close(self) -> None:
        """End the processes, if there are any."""
        if processes := self.__dict__.get("_processes"):
            processes.close()
