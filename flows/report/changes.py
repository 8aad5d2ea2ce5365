"""What is different from the previous run: its sources, its settings, and which texts are selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb

from ladm.flows.runs.changes import changed_files
from ladm.flows.runs.read import read_record, run_ids
from ladm.flows.runs.record import shards_of
from ladm.flows.runs.settings import setting_changes, settings_of
from ladm.tasks.addresses import addresses_of, view_of_documents
from ladm.tasks.errors import RecordError
from ladm.tasks.redact import without_secrets
from ladm.tasks.schema import RANKING
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store

MOST_LISTED = 200


@dataclass(frozen=True)
class Difference:
    """A run compared with the one before it."""

    previous: str
    """The previous run's id."""
    sources: dict[str, list[str]]
    """`added`, `changed`, `removed` → URIs, by what `refresh.py` calls a change."""
    settings: list[list[str]]
    """[dotted name, before, now] as JSON; of the configuration and the model's digest."""
    domains: list[dict[str, Any]]
    """Rows of `report_changes_by_domain.sql`; empty where the previous run's documents are gone from the store."""
    documents: list[dict[str, Any]]
    """Documents that entered or left the selection, at most `MOST_LISTED` of each, the best first."""
    comparable: bool
    """Whether the previous run's documents are still in the store."""


def difference(store: Store, connection: duckdb.DuckDBPyConnection, record: dict[str, Any]) -> Difference | None:
    """Compare with the newest earlier run of the store that ranked; None if there is none.

    Args:
        store: The store.
        connection: Has this run's views; gets the table `changes`.
        record: This run's record.
    """
    before = previous_record(store, record["run_id"])
    if before is None:
        return None
    domains: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    comparable = True
    try:
        duck.view_of_shards(connection, "previous_ranking", store, shards_of(before, "rank"), RANKING)
        addresses = addresses_of(before["sources"])
        view_of_documents(connection, "previous_documents", store, shards_of(before, "ingest"), addresses)
        connection.execute(duck.statement("report_changes"))
    except (duckdb.IOException, FileNotFoundError):  # `ladm gc` removed them, or somebody did
        comparable = False
    else:
        domains = connection.execute(duck.statement("report_changes_by_domain")).to_arrow_table().to_pylist()
        for change in ("entered", "left"):
            listed = connection.execute(
                f"from changes where change = $change order by rank, domain limit {MOST_LISTED}", {"change": change}
            )
            documents += listed.to_arrow_table().to_pylist()
    return Difference(
        previous=before["run_id"],
        sources=without_secrets(changed_files(before, record)),
        settings=without_secrets(setting_changes(settings_of(before), settings_of(record))),
        domains=domains,
        documents=[{**row, "source": without_secrets(row["source"])} for row in documents],
        comparable=comparable,
    )


def previous_record(store: Store, run_id: str) -> dict[str, Any] | None:
    """The record of the newest run before `run_id` that completed and ranked; run ids sort by time."""
    for name in reversed(run_ids(store)):
        if name >= run_id:
            continue
        try:
            record = read_record(store, name)
        except (OSError, RecordError):  # damaged, or not ours
            continue
        if record["status"] == "completed" and shards_of(record, "rank"):
            return record
    return None
