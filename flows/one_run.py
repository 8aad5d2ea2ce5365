"""One run of the DAG by this process: checked, done under a Prefect that keeps quiet, and told on a console."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ladm.flows.imports import without_collection

with without_collection():
    from ladm.flows.dag.doing import do_without_work
    from ladm.flows.dag.inventory import may_have_everything
    from ladm.flows.dag.preflight import preflight
    from ladm.flows.orchestration.environment import begin_server, prefect_server, quiet_prefect, users_server_is_set
    from ladm.flows.orchestration.prefect_settings import are_given, check_prefect_settings
    from ladm.tasks.models.cache import cache_root, ready_cache

if TYPE_CHECKING:
    from ladm.flows.config import RunConfig
    from ladm.flows.console import Console


def do_run(
    config: RunConfig,
    until: str,
    console: Console,
    meanwhile: contextlib.AbstractContextManager[object] | None = None,
) -> dict[str, Any]:
    """Do a run and return its record, also that of a run that failed.

    Args:
        config: The run's configuration.
        until: The last stage to do.
        console: Told of what goes on.
        meanwhile: Entered while the DAG goes on.

    Raises:
        UserError: The configuration cannot run; nothing was done.
    """
    given = are_given()
    quiet_prefect(ready_cache(), console.say)
    unseen = not users_server_is_set() and may_have_everything(config.store)
    if not unseen:
        begin_server(cache_root())
        if given:  # or else Prefect is imported after what can be refused is refused
            check_prefect_settings()
    plan = preflight(config, until, console.say)
    if unseen and (record := do_without_work(plan, console)):  # nobody would look at it in Prefect
        return record.account or record.as_json()
    begin_server(cache_root())
    with without_collection():  # Prefect
        check_prefect_settings()
        from ladm.flows.dag import prepared  # noqa: PLC0415
        from ladm.flows.dag.curate import RunFailedError, curate  # noqa: PLC0415
        from ladm.flows.orchestration.readers import started_ahead  # noqa: PLC0415

    reading = contextlib.nullcontext() if may_have_everything(config.store) else started_ahead(plan)
    try:
        with (
            prepared.give_plan(config, until, plan, console) as ready,
            reading,
            _served(),
            meanwhile or contextlib.nullcontext(),
        ):
            curate(config, until)
            assert ready.account is not None
            return ready.account
    except RunFailedError as failure:
        return failure.record.as_json()


@contextlib.contextmanager
def _served() -> Iterator[None]:
    """While open, Prefect has a server; while that comes up, what would be imported at the first flow and list is."""
    with without_collection():
        import pandas as pd  # noqa: F401, PLC0415  (for which Arrow looks)
        from prefect import flow_engine, task_engine  # noqa: F401, PLC0415
    with prefect_server(cache_root()):
        yield
