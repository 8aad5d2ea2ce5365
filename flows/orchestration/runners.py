"""Where the tasks of a run are done: threads of this process, a Ray cluster, or a Dask cluster.

Each runner says how many tasks of a stage it takes at once and asks its cluster for what a task needs: a core, or for
the stages that hold the model a GPU. Workers that hold the model do nothing else, so that it is loaded once in each.
A worker that dies (killed, out of memory, its machine gone) is replaced by its cluster, and the task that it was at is
done again elsewhere: a bounded number of times, since a shard that kills every worker must not keep a run going for
ever. Without an address in the environment (RAY_ADDRESS, DASK_SCHEDULER_ADDRESS) a cluster is made on this machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL
from prefect.utilities.annotations import quote

from ladm.tasks.cores import cores
from ladm.tasks.errors import ConfigError
from ladm.tasks.job import Job
from ladm.tasks.scorers.loaded_model import resolved_scorer

if TYPE_CHECKING:
    from ladm.flows.dag.plan import Plan

RunnerName = Literal["threads", "ray", "dask"]
ADDRESSES = {"ray": "RAY_ADDRESS", "dask": "DASK_SCHEDULER_ADDRESS"}
LOST_WORKERS = 3
"""Workers that one task may lose and be done again; beside `execution.retries`, which are for errors of its own.

A Dask cluster of the user's has its own bound, `distributed.scheduler.allowed-failures`, which is 3 as well.
"""


class Runner(Protocol):
    """What the DAG needs to know of where its tasks are done."""

    workers: int
    """Tasks of a CPU stage at once."""
    models: int
    """Tasks of a stage that holds the model at once."""
    same_process: bool
    """Whether a task's reports of progress reach the console by themselves."""

    def submit(self, task: Task[..., Any], job: Job, *, holds_model: bool) -> PrefectFuture[Any]:
        """Start a task on a job, where the model is if it `holds_model`."""


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
        yield Threads(execution.workers or cores())


class Threads:
    """Threads of this process, which holds one model.

    On a CPU it does two passes at once; and while one job is written down and another is begun, a third is at hand.
    """

    models = 3
    same_process = True

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def submit(self, task: Task[..., Any], job: Job, *, holds_model: bool) -> PrefectFuture[Any]:
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
        here = int(resources.get("CPU", 1))
        yield Ray(runner, workers or here, models or (int(resources.get("GPU", 1)) if on_gpu else 1), on_gpu)


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
        self._for_models = {"runtime_env": {"env_vars": environment}, "max_retries": LOST_WORKERS, **needs}
        self._for_others = {"num_cpus": 1, "max_retries": LOST_WORKERS}

    def submit(self, task: Task[..., Any], job: Job, *, holds_model: bool) -> PrefectFuture[Any]:
        """Start a task on a worker that has a core, or a GPU for the model, to spare."""
        from prefect_ray.context import remote_options  # noqa: PLC0415

        with remote_options(**(self._for_models if holds_model else self._for_others)):
            future: PrefectFuture[Any] = self._runner.submit(task, {"job": job.model_dump(mode="json")})
        return future


# -- Dask ------------------------------------------------------------------------------------------------------


MODEL, CORE = "MODEL", "CORE"
"""Resources of the workers of a cluster made here: those that hold the model, and those for all the rest."""


@contextlib.contextmanager
def _dask(workers: int | None, models: int | None, on_gpu: bool) -> Iterator[Runner]:
    from prefect_dask import DaskTaskRunner  # noqa: PLC0415

    address = os.environ.get(ADDRESSES["dask"])
    ours = workers or cores()
    where: dict[str, Any] = {"address": address} if address else _local_dask(ours, models or 1)
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with DaskTaskRunner(**where) as runner:
        yield Dask(runner, workers, models, on_gpu)


def _local_dask(ours: int, models: int) -> dict[str, Any]:
    """A cluster on this machine, as the arguments of its task runner.

    Its workers differ by their resources, which one that takes the place of a dead one has again; its address is new.
    Dask would give each an even share of the memory and end it at that, though only some hold a model.
    """
    from distributed import Nanny, Scheduler, SpecCluster  # noqa: PLC0415

    options = {"host": "127.0.0.1", "nthreads": 1, "memory_limit": None, "silence_logs": logging.ERROR}
    threads = {"OMP_NUM_THREADS": str(max(1, ours // models))}  # Dask's own would be 1
    holder = {"cls": Nanny, "options": {**options, "resources": {MODEL: 1}, "env": threads}}
    other = {"cls": Nanny, "options": {**options, "resources": {CORE: 1}}}
    # Not 8787, which may be another's.
    scheduler = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "allowed_failures": LOST_WORKERS}
    cluster = {
        "workers": dict(enumerate([holder] * models + [other] * ours)),
        "scheduler": {"cls": Scheduler, "options": scheduler},
        "silence_logs": logging.ERROR,
    }
    return {"cluster_class": SpecCluster, "cluster_kwargs": cluster}


class Dask:
    """A Dask cluster.

    Tasks are bound to workers by resources where there are such: GPU, or those of a cluster made here. In a cluster of
    the user's without them, the first workers hold the model; where those are lost, the others take over.
    """

    same_process = False

    def __init__(self, runner: Any, workers: int | None, models: int | None, on_gpu: bool) -> None:
        self._runner = runner
        known = runner.client.scheduler_info(n_workers=-1)["workers"]
        having = {
            what: [address for address, worker in known.items() if worker.get("resources", {}).get(what)]
            for what in ("GPU", MODEL, CORE)
        }
        if on_gpu and not having["GPU"]:
            raise ConfigError(
                "scorer.device: cuda, but no Dask worker has the resource GPU; start one with --resources GPU=1"
            )
        bound = having["GPU"] if on_gpu else having[MODEL]
        self.models = models or len(bound) or 1
        holders = bound or list(known)[: self.models]
        others = having[CORE] or [address for address in known if address not in holders] or holders
        self.workers = workers or sum(known[address]["nthreads"] for address in others)
        self._for_models: dict[str, Any] = {"workers": holders, "allow_other_workers": True}
        self._for_others: dict[str, Any] = {"workers": others, "allow_other_workers": True}
        if bound:
            self._for_models = {"resources": {"GPU" if on_gpu else MODEL: 1}}
        if having[CORE]:
            self._for_others = {"resources": {CORE: 1}}

    def submit(self, task: Task[..., Any], job: Job, *, holds_model: bool) -> PrefectFuture[Any]:
        """Start a task on one of the workers for it."""
        import dask  # noqa: PLC0415

        with dask.annotate(**(self._for_models if holds_model else self._for_others)):
            future: PrefectFuture[Any] = self._runner.submit(task, {"job": job.model_dump(mode="json")})
        return future
