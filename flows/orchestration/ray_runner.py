"""Tasks on a Ray cluster: the user's, or one that is made on this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture

from ladm.flows.orchestration.clusters import ADDRESSES, LOST_WORKERS
from ladm.tasks.cores import cores
from ladm.tasks.errors import ConfigError
from ladm.tasks.job import Job

MOST_ASKED = 256
"""Tasks of a kind that wait for a cluster of the user's, or are done there, at once, if it has no room for more."""


@contextlib.contextmanager
def ray_runner(workers: int | None, models: int | None, on_gpu: bool) -> Iterator[Ray]:
    """While open, a Ray cluster: the one of RAY_ADDRESS, or one of this machine."""
    # Where Ray itself ends a worker that takes too much memory, it would do the task again for ever.
    os.environ.setdefault("RAY_task_oom_retries", str(LOST_WORKERS))
    address = os.environ.get(ADDRESSES["ray"])
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "num_cpus": cores()}
    options = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True, **local}
    with contextlib.ExitStack() as stack:
        if not address and not _has_ray():
            stack.enter_context(_ray_of_this_machine_alone())
        import ray  # noqa: PLC0415
        from prefect_ray import RayTaskRunner  # noqa: PLC0415

        runner = stack.enter_context(RayTaskRunner(address=address, init_kwargs=options))
        resources = ray.cluster_resources()
        if on_gpu and not address and not resources.get("GPU"):
            raise ConfigError("scorer.device: cuda, but Ray finds no GPU on this machine; set RAY_ADDRESS, or use cpu")
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        if address and on_gpu and not gpus:
            warnings.warn("Ray's cluster has no GPU at present; scoring waits until it has grown one", stacklevel=2)
        at_once = models or (_asked(gpus, address) if on_gpu else 1)
        threads = max(1, (workers or cpus) // at_once)
        yield Ray(runner, workers or _asked(cpus, address), at_once, None if on_gpu else threads)


def _asked(there: int, address: str | None) -> int:
    """How many tasks to have under way at once: as many as there is room for, or is going to be.

    A cluster of the user's may have an autoscaler, and it grows by the tasks that wait, from no worker at all.
    """
    return max(there, MOST_ASKED) if address else max(there, 1)


def _has_ray() -> bool:
    """Whether this process is part of a Ray cluster already, which is then used as it is."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextlib.contextmanager
def _ray_of_this_machine_alone() -> Iterator[None]:
    """While open, a Ray cluster that is made here listens on the loopback interface, and asks for a token there.

    By itself Ray listens on every interface, and does what anybody asks who reaches it.
    """
    # What Ray has on Windows and macOS by default: a cluster that is of one machine, and so on its loopback interface.
    ours = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    if "RAY_AUTH_MODE" not in os.environ:
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ |= ours
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Ray:
    """A Ray cluster."""

    same_process = False

    def __init__(self, runner: Any, workers: int, models: int, threads: int | None) -> None:
        """Use a cluster; each model has so many `threads`, or where there are none, a GPU."""
        self.workers, self.models = workers, models
        self.devices: list[str] = []
        self._where = f"{'CPUs' if threads else 'GPUs'} of a Ray cluster"
        self._runner = runner
        # A runtime environment of their own keeps these workers apart from those of the CPU stages.
        environment = {"LADM_HOLDS_A_MODEL": "1"}
        if threads is None:
            # Without `max_calls=0` Ray ends a worker after each GPU task, and the next one loads the model again.
            needs: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0, "max_calls": 0}
        else:
            needs = {"num_cpus": 1}
            environment["OMP_NUM_THREADS"] = str(threads)  # Ray's own would be 1
        self._for_models = {"runtime_env": {"env_vars": environment}, "max_retries": LOST_WORKERS, **needs}
        self._for_others = {"num_cpus": 1, "max_retries": LOST_WORKERS}

    def submit(self, task: Task[..., Any], job: Job, *, holds_model: bool) -> PrefectFuture[Any]:
        """Start a task on a worker that has a core, or a GPU for the model, to spare."""
        from prefect_ray.context import remote_options  # noqa: PLC0415

        if holds_model:
            self.devices[:] = [self._where]
        with remote_options(**(self._for_models if holds_model else self._for_others)):
            future: PrefectFuture[Any] = self._runner.submit(task, {"job": job.as_dict()})
        return future
