"""Who does the jobs of a run, and what is told of one that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ladm.flows.dag.lineage import Request
from ladm.flows.dag.remedies import remedy_of
from ladm.flows.dag.rows import Row
from ladm.flows.runs.outcomes import Failure
from ladm.tasks.redact import without_secrets

if TYPE_CHECKING:
    from prefect import Task
    from prefect.futures import PrefectFuture

    from ladm.flows.orchestration.runners import Runner


class Crew(NamedTuple):
    """Who does the jobs: the runner that tasks are handed to, and the task of each stage."""

    runner: Runner
    tasks: dict[str, Task[..., Any]]

    def most(self, row: Row) -> int:
        """How many jobs of a row may be under way at once."""
        return self.runner.models if row.holds_model else self.runner.workers


def error_of(future: PrefectFuture[Any]) -> Any:
    """What a task that did not complete raised."""
    from ladm.flows.orchestration.runners import failure_of  # noqa: PLC0415  (Prefect)

    return failure_of(future)


def failure(request: Request, error: object) -> Failure:
    """What the record of a run says of a job that failed for good."""
    text = str(without_secrets(str(error))).strip().splitlines()
    reason = f"{type(error).__name__}: {text[0] if text else 'no message'}"
    return Failure(request.job.stage, request.job.label, reason, request.source, remedy_of(error))
