"""Jobs done here and now, one after the other and without Prefect: for a sample that is gone when it was looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ladm.flows.console import Console
from ladm.flows.dag.crew import Crew
from ladm.flows.dag.doing import inventory_of
from ladm.flows.dag.inventory import Inventory
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.scheduler import Dag
from ladm.flows.dag.stages import STAGES
from ladm.flows.runs.record import RunRecord
from ladm.tasks.job import Job, Stage, run_jobs


def done_by_hand(plan: Plan) -> RunRecord:
    """Do a plan up to what comes before its results; the first job that fails raises what it raised."""
    inventory = inventory_of(plan)
    record = RunRecord(plan)
    crew = Crew(_Here(inventory), STAGES)  # type: ignore[arg-type]  # stands for Prefect's tasks and futures
    Dag(plan, Console.silent(), lambda: crew, record, inventory).do_shards()
    return record


class _Here:
    """A runner that has done a job when it was handed over."""

    workers = models = 1
    same_process = True

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def submit(self, stage: Stage, job: Job, *, holds_model: bool) -> Finished:
        done, *together = run_jobs(stage, job)
        for manifest in together:
            self._inventory.add(manifest)
        return Finished(done.as_dict())


class Finished:
    """What Prefect's future of a completed task is to the DAG; `result` is the manifest of its job."""

    name = "Completed"

    def __init__(self, result: dict[str, Any]) -> None:
        self._result = result
        self.state = self

    def is_completed(self) -> bool:
        """It is."""
        return True

    def wait(self) -> None:
        """Nothing is left to wait for."""

    def result(self) -> dict[str, Any]:
        """The manifest, as JSON has it."""
        return self._result

    def add_done_callback(self, call: Callable[[Finished], None]) -> None:
        """Call at once."""
        call(self)
