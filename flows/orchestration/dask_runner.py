"""Tasks on a Dask cluster: the user's, or one that is made on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture

from ladm.flows.orchestration.clusters import ADDRESSES, LOST_WORKERS
from ladm.tasks.cores import cores
from ladm.tasks.errors import ConfigError
from ladm.tasks.job import Job

MODEL, CORE = "MODEL", "CORE"
"""Resources of the workers of a cluster made here: those that hold the model, and those for all the rest."""


@contextlib.contextmanager
def dask_runner(workers: int | None, models: int | None, on_gpu: bool) -> Iterator[Dask]:
    """While open, a Dask cluster: the one of DASK_SCHEDULER_ADDRESS, or one of this machine."""
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
        self.devices: list[str] = []
        self._where = f"{'GPUs' if on_gpu else 'CPUs'} of a Dask cluster"
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

        if holds_model:
            self.devices[:] = [self._where]
        with dask.annotate(**(self._for_models if holds_model else self._for_others)):
            future: PrefectFuture[Any] = self._runner.submit(task, {"job": job.as_dict()})
        return future
