"""The flow of a run: every shard goes through the stages on its own; ranking is the only barrier that all runs have.

So the model works on one shard while the next is being tokenized. A shard that fails for good does not stop the
others: the run finishes what it can, ranks nothing, ends Failed and names it, and the next run does only that one.
Tasks are submitted from the flow alone, a bounded number at a time (`scheduler.py`), and only manifests travel between
them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from typing import Annotated, Any

from prefect import Task, flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from ladm.flows.config import RunConfig
from ladm.flows.console import Console
from ladm.flows.dag import prepared
from ladm.flows.dag.calibrating import with_files
from ladm.flows.dag.crew import Crew
from ladm.flows.dag.doing import RunFailedError, do_stages, publish_what_there_is
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.preflight import preflight
from ladm.flows.dag.remedies import remedy_of
from ladm.flows.dag.stages import NAMES, STAGES
from ladm.flows.orchestration import cancelling, naming
from ladm.flows.orchestration.artifacts import ArtifactConsole, tell_report, tell_results
from ladm.flows.orchestration.runners import runner_of
from ladm.flows.runs import read
from ladm.flows.runs.outcomes import Failure
from ladm.flows.runs.record import RunRecord
from ladm.tasks import progress, stopping
from ladm.tasks.stage import StoreRecords, stage_task
from ladm.tasks.storage.file_systems import reason_and_place
from ladm.tasks.storage.store import Store

__all__ = ["RunFailedError", "curate", "stage_tasks"]

Until = Annotated[str, Field(json_schema_extra={"enum": list(NAMES)})]
"""A stage of a run, as a list to choose from in the form of Prefect's UI; `preflight` refuses what is none."""


@flow(
    name="curate",
    flow_run_name=naming.flow_run_name,
    description="Curate long documents: ingest, filter, tokenize, score by attention, rank and export",
    task_runner=ThreadPoolTaskRunner(max_workers=256),  # type: ignore[arg-type]  # `Dag.drain` bounds what is submitted
    persist_result=False,
    result_serializer="json",  # and no retries: whatever defaults the user has set for flows of their own
    retries=0,
    validate_parameters=True,
)
def curate(config: RunConfig, until: Until = NAMES[-1]) -> dict[str, Any]:
    """Run the DAG once and return the run record; of a run that a command prepared, only which run it was.

    Args:
        config: The run's configuration; Prefect's UI shows it as a form.
        until: The last stage to do.

    Raises:
        UserError: The configuration cannot run.
        RunFailedError: A shard failed for good, or there was nothing to rank.
    """
    ready = prepared.take_plan(config, until)
    plan, console = (ready.plan, ready.console) if ready else _prepared_here(config, until)
    with cancelling.cancelled_by_server():
        record = do(plan, console)
    account = record.account or record.as_json()
    if ready is None:
        console.close()
        tell_results(record, account)
        if record.status == "completed" and until == "export":
            tell_report(record)
    if record.status == "failed":
        raise RunFailedError(record)
    if ready:
        ready.account = account
        return {name: account[name] for name in ("run_id", "status")}
    return account


def _prepared_here(config: RunConfig, until: str) -> tuple[Plan, Console]:
    """The plan of a deployed run, and what tells Prefect of it."""
    console = ArtifactConsole()
    return preflight(config, until, console.say), console


def do(plan: Plan, console: Console) -> RunRecord:
    """Do all stages of a plan, and publish what a completed run made.

    Whatever stops the run leaves its record: `run.json` says how far it came, and by what it was stopped.
    """
    plan, store = with_files(plan), Store(plan.config.store)
    record = RunRecord(plan, run_id=naming.run_id_of_this_flow(), previous=read.latest_record(store))
    run, token = stopping.Stopping(), progress.listener.set(console.advance)
    for note in plan.notes:
        record.notices.append(note)
        console.say(note)
    try:
        with stopping.stoppable(run), cancelling.interruptible(), contextlib.ExitStack() as stack:

            @functools.cache
            def crew() -> Crew:
                runner = stack.enter_context(runner_of(plan))
                record.devices = runner.devices
                return Crew(runner, stage_tasks(plan))

            do_stages(store, record, console, crew)
            publish_what_there_is(record, console)
    except BaseException as error:
        if cancelling.is_cancellation(error):
            record.cancelled = True
            cancelling.end_soon(run, error)
        if read.latest_run_id(store) != record.run_id:  # else it was just done
            reason = f"{type(error).__name__}: {reason_and_place(error) or 'no message'}"
            record.failures.append(Failure("run", "all shards", reason, remedy=remedy_of(error)))
            publish_what_there_is(record, console)
        if isinstance(error, cancelling.Stop):
            cancelling.tell_cancelled(f"stopped by {error}; run {record.run_id} of {plan.config.store}")
            console.leave(error.number)
        raise
    finally:
        progress.listener.reset(token)
    return record


def stage_tasks(plan: Plan) -> dict[str, Task[..., Any]]:
    """Every stage as a Prefect task whose results are kept in the run's store."""
    records = StoreRecords(uri=plan.config.store)
    # Prefect wants result storage saved on its server; it holds the store's address and nothing else.
    name = f"store-{hashlib.sha256(plan.config.store.encode()).hexdigest()[:16]}"
    records.save(name, overwrite=True)
    execution = plan.config.execution
    return {
        name: stage_task(stage, records, execution.retries, execution.retry_seconds) for name, stage in STAGES.items()
    }
