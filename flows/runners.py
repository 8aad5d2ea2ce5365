"""Where the tasks of a run are done: threads of this process, a Ray cluster, or a Dask cluster.

Each runner says how many tasks of a stage it takes at once and asks its cluster for what a task needs: a core, or for
the stages that hold the model a GPU. Workers that hold the model do nothing else, so that it is loaded once in each.
Without an address in the environment (RAY_ADDRESS, DASK_SCHEDULER_ADDRESS) a cluster is made on this machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL
from prefect.utilities.annotations import quote

from tasks.errors import ConfigError
from tasks.job import Job
from tasks.score import resolved_scorer

if TYPE_CHECKING:
    from flows.preflight import Plan

RunnerName = Literal["threads", "ray", "dask"]
MODEL_STAGES = ("score", "scan")
ADDRESSES = {"ray": "RAY_ADDRESS", "dask": "DASK_SCHEDULER_ADDRESS"}


class Runner(Protocol):
    """What the DAG needs to know of where its tasks are done."""

    workers: int
    """Tasks of a CPU stage at once."""
    models: int
    """Tasks of a stage that holds the model at once."""
    same_process: bool
    """Whether a task's reports of progress reach the console by themselves."""

    def submit(self, task: Task[..., Any], job: Job) -> PrefectFuture[Any]:
        """Start a task on a job."""


def check_reachable(name: RunnerName, prefect_url: str | None) -> None:
    """Refuse a cluster of other machines together with a Prefect server that only this machine can reach.

    Raises:
        ConfigError: One line that names the fix.
    """
    cluster = os.environ.get(ADDRESSES[name], "")
    if cluster and not _is_here(cluster) and (prefect_url is None or _is_here(prefect_url)):
        raise ConfigError(
            f"PREFECT_API_URL: the tasks on {ADDRESSES[name]}={cluster} need a Prefect server that they can reach; "
            "start one and set its address, e.g. http://prefect:4200/api"
        )


def _is_here(address: str) -> bool:
    """Whether an address, with or without a scheme, is one of this machine's own."""
    host = urllib.parse.urlsplit(address if "://" in address else f"//{address}").hostname
    return host in ("auto", "local", "localhost", "127.0.0.1", "::1")


@contextlib.contextmanager
def runner_of(plan: Plan) -> Iterator[Runner]:
    """While open, the runner that the run's configuration names."""
    execution = plan.config.execution
    on_gpu = resolved_scorer(plan.scorer).device.startswith("cuda")
    if execution.runner != "threads":
        check_reachable(execution.runner, PREFECT_API_URL.value())
    if execution.runner == "ray":
        with _ray(execution.workers, execution.models, on_gpu) as runner:
            yield runner
    elif execution.runner == "dask":
        with _dask(execution.workers, execution.models, on_gpu) as runner:
            yield runner
    else:
        yield Threads(execution.workers or os.cpu_count() or 1)


class Threads:
    """Threads of this process, which holds one model."""

    models = 1
    same_process = True

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def submit(self, task: Task[..., Any], job: Job) -> PrefectFuture[Any]:
        """Start a task. Quoted, so that Prefect does not search the job's inputs for futures."""
        return task.submit(quote(job.model_dump(mode="json")))


def failure_of(future: PrefectFuture[Any]) -> Any:
    """What a task that did not complete raised; where its worker died, what the cluster says of that."""
    try:
        return future.result(raise_on_failure=False)
    except Exception as error:
        return getattr(error, "cause", error)  # Ray's own errors hold a whole traceback in their message


# -- Ray -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _ray(workers: int | None, models: int | None, on_gpu: bool) -> Iterator[Runner]:
    import ray  # noqa: PLC0415
    from prefect_ray import RayTaskRunner  # noqa: PLC0415

    address = os.environ.get(ADDRESSES["ray"])
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    options = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True, **local}
    with RayTaskRunner(address=address, init_kwargs=options) as runner:
        resources = ray.cluster_resources()
        if on_gpu and not address and not resources.get("GPU"):
            raise ConfigError("scorer.device: cuda, but Ray finds no GPU on this machine; set RAY_ADDRESS, or use cpu")
        cores = int(resources.get("CPU", 1))
        yield Ray(runner, workers or cores, models or (int(resources.get("GPU", 1)) if on_gpu else 1), on_gpu)


class Ray:
    """A Ray cluster."""

    same_process = False

    def __init__(self, runner: Any, workers: int, models: int, on_gpu: bool) -> None:
        self.workers, self.models = workers, models
        self._runner = runner
        # A runtime environment of their own keeps these workers apart from those of the CPU stages.
        environment = {"LADM_HOLDS_A_MODEL": "1"}
        if on_gpu:
            # Without `max_calls=0` Ray ends a worker after each GPU task, and the next one loads the model again.
            needs: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0, "max_calls": 0}
        else:
            needs = {"num_cpus": 1}
            environment["OMP_NUM_THREADS"] = str(max(1, workers // models))  # Ray's own would be 1
        self._for_models = {"runtime_env": {"env_vars": environment}, **needs}

    def submit(self, task: Task[..., Any], job: Job) -> PrefectFuture[Any]:
        """Start a task on a worker that has a core, or a GPU for the model, to spare."""
        from prefect_ray.context import remote_options  # noqa: PLC0415

        with remote_options(**(self._for_models if job.stage in MODEL_STAGES else {"num_cpus": 1})):
            future: PrefectFuture[Any] = self._runner.submit(task, {"job": job.model_dump(mode="json")})
        return future


# -- Dask ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _dask(workers: int | None, models: int | None, on_gpu: bool) -> Iterator[Runner]:
    from prefect_dask import DaskTaskRunner  # noqa: PLC0415

    address = os.environ.get(ADDRESSES["dask"])
    cores = workers or os.cpu_count() or 1
    local: dict[str, Any] = {"n_workers": cores + (models or 1), "threads_per_worker": 1}
    local["dashboard_address"] = "127.0.0.1:0"  # not 8787, which may be another's
    where: dict[str, Any] = {"address": address} if address else {"cluster_kwargs": local}
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with DaskTaskRunner(**where) as runner:
        yield Dask(runner, workers, models, on_gpu)


class Dask:
    """A Dask cluster; workers that hold the model are the first ones, or on GPUs those with the resource GPU."""

    same_process = False

    def __init__(self, runner: Any, workers: int | None, models: int | None, on_gpu: bool) -> None:
        self._runner = runner
        known = runner.client.scheduler_info()["workers"]
        gpus = [address for address, worker in known.items() if worker.get("resources", {}).get("GPU")]
        if on_gpu and not gpus:
            raise ConfigError(
                "scorer.device: cuda, but no Dask worker has the resource GPU; start one with --resources GPU=1"
            )
        self.models = models or (len(gpus) if on_gpu else 1)
        holders = gpus if on_gpu else list(known)[: self.models]
        others = [address for address in known if address not in holders] or holders
        self.workers = workers or sum(known[address]["nthreads"] for address in others)
        # Where those are lost, the others take over.
        self._for_models = {"workers": holders, "allow_other_workers": True}
        self._for_others = {"workers": others, "allow_other_workers": True}
        if on_gpu:
            self._for_models = {"resources": {"GPU": 1}}

    def submit(self, task: Task[..., Any], job: Job) -> PrefectFuture[Any]:
        """Start a task on one of the workers for it."""
        import dask  # noqa: PLC0415

        with dask.annotate(**(self._for_models if job.stage in MODEL_STAGES else self._for_others)):
            future: PrefectFuture[Any] = self._runner.submit(task, {"job": job.model_dump(mode="json")})
        return future
