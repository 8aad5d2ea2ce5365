"""Which run a question is about where none is named, and what to say where that is not the newest one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from ladm.flows.runs.read import has_record, latest_run_id, read_record, run_ids, summary_path
from ladm.tasks.errors import RecordError
from ladm.tasks.storage.store import Store


def newest_run(store: Store) -> str:
    """The newest completed run, or the newest run of any kind when none completed.

    Raises:
        RecordError: There is no run.
    """
    newest = latest_run_id(store) or max(run_ids(store), default=None)
    if newest is None:
        raise RecordError(f"--store: there is no run in {store.uri!r}; start one with `ladm run --store {store.uri}`")
    return newest


def asked_run(store: Store, run_id: str | None, tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """The record of the run that is asked about.

    Args:
        store: The store.
        run_id: The run; the newest completed one when not given.
        tell: Told which run it is, where none is named and it is not the newest, or not whole.

    Raises:
        RecordError: No such store or run.
    """
    shown = run_id or newest_run(store)
    record = read_record(store, shown)
    if tell and run_id is None and (line := about_run(store, shown)):
        tell(line)
    return record


def about_run(store: Store, shown: str) -> str | None:
    """What to tell of a run that is shown since none was named: that it is not whole, or not the newest; else nothing.

    Args:
        store: The store.
        shown: The run.
    """
    newer = next((name for name in reversed(store.names("runs")) if name > shown and has_record(store, name)), None)
    told = _how_it_ended(store, shown)
    if newer is None:
        return f"this is run {shown}, which {told}; no later run is there" if told else None
    ended = _how_it_ended(store, newer) or "completed, but is not the latest by the store's own account"
    which = f", which {told}" if told else ", the newest that went all the way"
    return f"this is run {shown}{which}; run {newer} is newer and {ended}: --run {newer} shows it"


def _how_it_ended(store: Store, run_id: str) -> str | None:
    """How a run ended that did not go all the way; None if it did, or its record cannot be read."""
    try:
        record: Any = orjson.loads(store.read_bytes(summary_path(run_id)))
        status, until = record["status"], record["until"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    if status == "completed":
        return None if until == "export" else f"went no further than {until}, as asked"
    failures = record.get("failures") or [{}]
    reason = f" ({failures[0]['stage']} {failures[0]['shard']})" if failures[0].get("shard") else ""
    return f"failed{reason}" if status == "failed" else f"was {status}"
