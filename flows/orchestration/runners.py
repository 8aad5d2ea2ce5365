"""Where the tasks of a run are done: threads of this process, a Ray cluster, or a Dask cluster.

Each runner says how many tasks of a stage it takes at once and asks its cluster for what a task needs: a core, or for
the stages that hold the model a GPU. Workers that hold the model do nothing else, so that it is loaded once in each.
A worker that dies (killed, out of memory, its machine gone) is replaced by its cluster, and the task that it was at is
done again elsewhere: a bounded number of times, since a shard that kills every worker must not keep a run going for
ever. Without an address in the environment (RAY_ADDRESS, DASK_SCHEDULER_ADDRESS) a cluster is made on this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL

from ladm.flows.orchestration.clusters import check_reachable
from ladm.flows.orchestration.dask_runner import dask_runner
from ladm.flows.orchestration.ray_runner import ray_runner
from ladm.flows.orchestration.threads_runner import threads_runner
from ladm.tasks.cores import cores
from ladm.tasks.job import Job
from ladm.tasks.scorers.loaded_model import resolved_scorer

if TYPE_CHECKING:
    from ladm.flows.dag.plan import Plan


class Runner(Protocol):
    """What the DAG needs to know of where its tasks are done."""

    same_process: bool
    """Whether a task's reports of progress reach the console by themselves."""

    devices: list[str]
    """Where windows were put through the model, as far as they were: as the summary of the run tells it."""

    @property
    def workers(self) -> int:
        """Tasks of a CPU stage at once."""

    @property
    def models(self) -> int:
        """Tasks of a stage that holds the model at once."""

    def submit(self, task: Task[..., Any], job: Job, *, holds_model: bool) -> PrefectFuture[Any]:
        """Start a task on a job, where the model is if it `holds_model`."""


@contextlib.contextmanager
def runner_of(plan: Plan) -> Iterator[Runner]:
    """While open, the runner that the run's configuration names."""
    execution = plan.config.execution
    device = resolved_scorer(plan.scorer).device
    runner: contextlib.AbstractContextManager[Runner]
    if execution.runner == "threads":
        runner = threads_runner(execution.workers or cores(), execution.models, device)
    else:
        check_reachable(execution.runner, PREFECT_API_URL.value())
        of_cluster = ray_runner if execution.runner == "ray" else dask_runner
        runner = of_cluster(execution.workers, execution.models, device.startswith("cuda"))
    with runner as opened:
        yield opened


def failure_of(future: PrefectFuture[Any]) -> Any:
    """What a task that did not complete raised; where its worker died, what the cluster says of that."""
    try:
        return future.result(raise_on_failure=False)
    except Exception as error:
        return getattr(error, "cause", error)  # Ray's own errors hold a whole traceback in their message
