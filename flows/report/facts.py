"""What a report tells of one run: its record, and answers of `sql/report_*.sql` over the views of `ladm sql`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb

from ladm.flows.ask.query import run_views
from ladm.flows.dag.stages import TABLE
from ladm.flows.report.changes import Difference, difference
from ladm.flows.report.heatmaps import Heatmap, stored_heatmaps
from ladm.flows.runs.record import shards_of
from ladm.tasks.redact import without_secrets
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store

BARS = 30
EACH_END = 10
EXCERPT_CHARACTERS = 600
MOST_DOMAINS = 100
"""Domains, of the most tokens, whose documents are shown; the others are counted."""

UNITS = {row.stage.name: row.units for row in TABLE}
"""Stage → what its counts count, and what it passes on."""


@dataclass(frozen=True)
class StageFlow:
    """What went into a stage and what came out."""

    stage: str
    received: int
    unit: str
    kept: int
    dropped: dict[str, int]
    quarantined: int
    passed_on: int
    passed_unit: str
    tokens: int | None
    """Tokens of what it passed on; None before anything is tokenized."""
    bytes: int | None
    """UTF-8 bytes of the texts that it passed on, or of an export's files; None for windows and scores."""


@dataclass(frozen=True)
class Facts:
    """All that a page is made of."""

    record: dict[str, Any]
    """`run.json`, without secrets."""
    flow: list[StageFlow]
    domains: list[dict[str, Any]]
    """Rows of `card.sql`, most tokens first; all of them."""
    scores: dict[str, list[dict[str, Any]]]
    """Domain → rows of `report_scores.sql`."""
    allocation: list[dict[str, Any]]
    documents: list[dict[str, Any]]
    """Rows of `report_documents.sql`, of the first `MOST_DOMAINS` domains."""
    quarantine: list[dict[str, Any]]
    heatmaps: dict[str, Heatmap]
    """window_id → picture, of windows of `documents`."""
    difference: Difference | None
    """None where no earlier run was ranked, or this one was not."""


def collect(store: Store, record: dict[str, Any]) -> Facts:
    """Ask the store all about a run. Needs no model, and memory for no more than what is shown."""
    ranked = bool(shards_of(record, "rank"))
    changed = None
    domains: list[dict[str, Any]] = []
    scores: dict[str, list[dict[str, Any]]] = {}
    allocation: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    with run_views(store, record) as connection:
        quarantine = [row | row["example"] for row in rows_of(connection, "report_quarantine")]
        if ranked:
            domains = domain_rows(connection)
            for row in rows_of(connection, "report_scores", bins=BARS):
                scores.setdefault(row["domain"], []).append(row)
            allocation = connection.execute("from allocation order by all").to_arrow_table().to_pylist()
            documents = shown_documents(connection, domains)
            changed = difference(store, connection, record)
    window_ids = {row["window_id"] for row in documents}
    heatmaps = [one for one in stored_heatmaps(store, record["run_id"]) if one.window_id in window_ids]
    return Facts(
        record=without_secrets(record),
        flow=stage_flow(record),
        domains=domains,
        scores=scores,
        allocation=allocation,
        documents=[row | {"source": without_secrets(row["source"])} for row in documents],
        quarantine=[row | without_secrets({name: row[name] for name in ("reason", "source")}) for row in quarantine],
        heatmaps={one.window_id: one for one in heatmaps},
        difference=changed,
    )


def rows_of(connection: duckdb.DuckDBPyConnection, name: str, **variables: Any) -> list[dict[str, Any]]:
    """The rows that `sql/<name>.sql` gives, with its variables set."""
    duck.set_variables(connection, variables)
    rows: list[dict[str, Any]] = connection.execute(duck.statement(name)).to_arrow_table().to_pylist()
    return rows


def domain_rows(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """What `card.sql` says of each domain, most tokens first."""
    return sorted(rows_of(connection, "card"), key=lambda row: (-row["tokens"], row["domain"]))


def shown_documents(
    connection: duckdb.DuckDBPyConnection, domains: list[dict[str, Any]], each_end: int = EACH_END
) -> list[dict[str, Any]]:
    """The best and worst documents of the largest domains."""
    shown = [row["domain"] for row in domains[:MOST_DOMAINS]]
    return rows_of(
        connection, "report_documents", each_end=each_end, characters=EXCERPT_CHARACTERS, shown_domains=shown
    )


def stage_flow(record: dict[str, Any]) -> list[StageFlow]:
    """The funnel, out of a run record's stages."""
    flow: list[StageFlow] = []
    for stage, summary in record["stages"].items():
        unit, passed_unit = UNITS[stage]
        passed_on, tokens, size = summary["kept"], summary.get("tokens"), summary.get("bytes")
        if unit != passed_unit and passed_unit in summary:
            passed_on = summary[passed_unit]
        if stage == "export" and "rank" in record["stages"]:
            tokens = record["stages"]["rank"].get("selected_tokens")
        flow.append(
            StageFlow(
                stage=stage,
                received=summary["in"],
                unit=unit,
                kept=summary["kept"],
                dropped=summary["dropped"],
                quarantined=summary["quarantined"],
                passed_on=passed_on,
                passed_unit=passed_unit,
                tokens=tokens,
                bytes=size,
            )
        )
    return flow
