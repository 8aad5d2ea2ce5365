"""How Prefect shows a flow run: by the run's id in the store's records, and the store."""

from __future__ import annotations

from typing import Any

from ladm.flows.runs.record import new_run_id
from ladm.tasks.printable import printable
from ladm.tasks.redact import one_line

STORE_CHARACTERS = 150

_run_ids: dict[str, str] = {}
"""Flow run → the id of its run, of flow runs that were named and have not begun."""


def flow_run_name() -> str:
    """The name of the flow run that is about to begin; Prefect asks for it, and the run then takes the same id."""
    from prefect.context import FlowRunContext  # noqa: PLC0415

    context = FlowRunContext.get()
    run_id = new_run_id()
    config: Any = context.parameters.get("config") if context and context.parameters else None
    store = config.get("store") if isinstance(config, dict) else getattr(config, "store", None)
    if context and context.flow_run:
        _run_ids[str(context.flow_run.id)] = run_id
    return printable(one_line(f"{run_id} {store or ''}".strip()), STORE_CHARACTERS)


def run_id_of_this_flow() -> str:
    """The id that this flow run was named by, once; a new one where it was named by none."""
    from prefect.context import FlowRunContext  # noqa: PLC0415

    context = FlowRunContext.get()
    named = _run_ids.pop(str(context.flow_run.id), None) if context and context.flow_run else None
    return named or new_run_id()
