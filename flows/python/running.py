"""Runs that are started from Python: by themselves, or as a subflow in a Prefect flow of the user's own."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladm.flows.config import RunConfig
from ladm.flows.console import Console
from ladm.flows.python.configuration import Configured, config_of
from ladm.flows.python.opened import Run
from ladm.flows.python.table import Table

if TYPE_CHECKING:
    from ladm.flows.forecast.forecast import Forecast
    from ladm.tasks.scorers.calibration import Calibration


class FailedRunError(RuntimeError):
    """A run that ended Failed. What was done is kept: the same call again does only what failed.

    Attributes:
        run: The run, as far as it came.
    """

    def __init__(self, run: Run) -> None:
        named = [f"{one['stage']} {one['shard']}: {one['error']}" for one in run.record["failures"]]
        more = f"; and {len(named) - 5} more" if len(named) > 5 else ""
        super().__init__(f"run {run.id} failed: {'; '.join(named[:5])}{more}")
        self.run = run


def run(config: Configured = None, *, until: str = "export", progress: bool = True, **changes: Any) -> Run:
    """Do a run (`ladm run`).

    Args:
        config: A YAML file, its values as a dict, or a configuration; the bundled sample's when not given.
        until: The last stage to do.
        progress: Show on stderr how far it is.
        changes: Settings that take the place of the configuration's, e.g. `window={"length": 4096}`.

    Returns:
        The run; its results are tables.

    Raises:
        UserError: The configuration cannot run; the message is one line, and nothing was done.
        FailedRunError: Something failed; the others' results are kept.
    """
    chosen = config_of(config, **changes)
    if _within_a_flow():
        return curate(chosen, until=until)
    from ladm.flows.one_run import do_run  # noqa: PLC0415  (after what can be refused at once)

    with Console(sys.stderr if progress else None) as console:
        return _whole(chosen, do_run(chosen, until, console))


def plan(config: Configured = None, *, until: str = "export", rate: float | None = None, **changes: Any) -> Forecast:
    """Tell what a run would do, and take (`ladm plan`): nothing is done.

    Args:
        config: As for `run`.
        until: The last stage.
        rate: The price of an hour, for `cost`.
        changes: As for `run`.

    Returns:
        By stage what is there and what is left; windows and tokens to score, seconds, bytes, and the reasons.

    Raises:
        UserError: The configuration cannot run; the message is one line.
    """
    from ladm.flows.forecast.forecast import forecast  # noqa: PLC0415

    return forecast(config_of(config, **changes), until, rate=rate)


def curate(config: Configured = None, *, until: str = "export", **changes: Any) -> Run:
    """Do a run as a subflow of the Prefect flow that calls it.

    Prefect's server, its logs and its settings are the caller's. Every stage's results are kept in the run's store, so
    the second run of the flow finds all that did not change, whatever the flow itself caches.

    Args:
        config: As for `run`.
        until: The last stage to do.
        changes: As for `run`.

    Raises:
        UserError: The configuration cannot run; nothing was done.
        FailedRunError: Something failed; the subflow has ended Failed.
    """
    chosen = config_of(config, **changes)
    from ladm.flows.orchestration.prefect_settings import check_prefect_settings  # noqa: PLC0415

    check_prefect_settings()
    from ladm.flows.dag.curate import RunFailedError  # noqa: PLC0415  (Prefect)
    from ladm.flows.dag.curate import curate as flow  # noqa: PLC0415

    try:
        return _whole(chosen, flow(chosen, until))
    except RunFailedError as failure:
        raise FailedRunError(Run(chosen.store, failure.record.as_json())) from None


def _whole(config: RunConfig, record: dict[str, Any]) -> Run:
    """The run of a record, unless it failed."""
    done = Run(config.store, record)
    if done.status == "failed":
        raise FailedRunError(done)
    return done


def _within_a_flow() -> bool:
    """Whether this is called in a Prefect flow."""
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext  # noqa: PLC0415

    return FlowRunContext.get() is not None


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found."""

    table: Table
    """A row a contrast, domain, scorer, formula and choice of layers, with its AUC."""
    calibration: Calibration | None
    """What was made, or measured."""
    said: tuple[str, ...]
    """The findings in words."""
    files: tuple[str, ...]
    """What was written."""

    def __repr__(self) -> str:
        return "\n".join([repr(self.table), *self.said, *(f"written: {file}" for file in self.files)])


def evaluate(
    config: Configured = None,
    *,
    windows: int | None = None,
    seed: int = 0,
    lists: str | None = None,
    calibration: str | None = None,
    thorough: bool = False,
    out: str = "ladm-evaluation",
    progress: bool = True,
    **changes: Any,
) -> Evaluated:
    """Measure how well each way to score works on a corpus, and make a calibration (`ladm evaluate`).

    Args:
        config: As for `run`.
        windows: Whole windows in all; 20 a domain when not given.
        seed: Of pieces, halves and bootstrap.
        lists: A regular expression of the domains that are lists.
        calibration: Path of a calibration to measure; none is made then.
        thorough: The other scorers on all testing documents, not a quarter of them.
        out: Folder for what is written.
        progress: Show on stderr how far it is.
        changes: As for `run`.

    Raises:
        UserError: It cannot be done; the message is one line.
    """
    from ladm.flows.evaluation.request import question_of  # noqa: PLC0415
    from ladm.flows.orchestration.environment import prefect_server, quiet_prefect  # noqa: PLC0415
    from ladm.flows.orchestration.prefect_settings import check_prefect_settings  # noqa: PLC0415
    from ladm.tasks.models.cache import cache_root, ready_cache  # noqa: PLC0415

    with Console(sys.stderr if progress else None) as console:
        quiet_prefect(ready_cache(), console.say)
        check_prefect_settings()
        contrast = {"windows": windows, "seed": seed, "lists": lists}
        question = question_of(config_of(config, **changes), contrast, calibration, out, thorough, console)
        from ladm.flows.dag import prepared  # noqa: PLC0415  (Prefect)
        from ladm.flows.evaluation.evaluate import evaluate as flow  # noqa: PLC0415
        from ladm.flows.evaluation.results import SCHEMA, said, write_evaluation  # noqa: PLC0415

        with prepared.give_question(question), prefect_server(cache_root()):
            found = flow()
    import pyarrow as pa  # noqa: PLC0415

    written = write_evaluation(found, Path(out))
    table = Table.of(pa.Table.from_pylist(found.rows, SCHEMA))
    return Evaluated(table, found.calibration, tuple(said(found)), tuple(map(str, written)))
