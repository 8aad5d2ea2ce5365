"""The report's tables. Text from the data comes out printable, on one line; the template escapes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from ladm.flows.report.cells import Table, one_line, place
from ladm.flows.report.changes import MOST_LISTED, Difference
from ladm.flows.report.facts import StageFlow
from ladm.flows.report.sentences import layers_text


def failures(record: dict[str, Any]) -> Table | None:
    """The jobs that failed for good."""
    rows = [(one["stage"], one["shard"], one["error"], one["source"]) for one in record["failures"]]
    if not rows:
        return None
    columns = ("stage", "shard", "error", "source")
    return Table("failures-table", "failures", "Failed for good", columns, rows, {"error": "long", "source": "name"})


def funnel(flow: Sequence[StageFlow]) -> Table:
    """In and out of each stage, with reasons."""
    rows = []
    tokens: int | None = None
    for one in flow:
        reasons = "\n".join(f"{number:,} {reason}" for reason, number in one.dropped.items())
        rows.append(
            (
                *(one.stage, one.received, one.unit, one.kept, sum(one.dropped.values()), reasons or None),
                *(one.quarantined, one.passed_on, one.passed_unit, tokens, one.tokens, one.bytes),
            )
        )
        tokens = one.tokens
    columns = (
        *("stage", "in", "of what", "kept", "dropped", "dropped because"),
        *("quarantined", "passed on", "as", "tokens in", "tokens out", "bytes out"),
    )
    caption = (
        "Stage by stage. Tokens of windows up to score; of whole documents from rank on. Bytes of text, and of the "
        "exported files."
    )
    return Table("funnel-table", "stages", caption, columns, rows, {"dropped because": "name"})


def quarantine(rows: Sequence[dict[str, Any]]) -> Table | None:
    """What was quarantined, by reason."""
    if not rows:
        return None
    shown_rows = [
        (row["stage"], row["reason"], row["records"], row["files"], place(row), one_line(row["excerpt"]))
        for row in rows[:MOST_LISTED]
    ]
    caption = 'Reasons, with the first place of each; all of it: ladm sql "from quarantine"'
    columns = ("stage", "reason", "records", "files", "first at", "excerpt")
    kinds = {"reason": "name", "first at": "name", "excerpt": "long"}
    return Table("quarantine-table", "reasons", caption, columns, shown_rows, kinds)


def domains(rows: Sequence[dict[str, Any]]) -> Table:
    """Each domain's documents, scores and cut."""
    names = (
        *("domain", "documents", "tokens", "selected_documents", "selected_tokens"),
        *("lowest", "middle", "highest", "threshold"),
    )
    columns = ("domain", "documents", "tokens", "selected", "tokens selected", "lowest", "median", "highest", "cut")
    cells = [tuple(row[name] for name in names) for row in rows]
    return Table("domains-table", "domains", "Scores of each domain's documents", columns, cells, {"domain": "name"})


def allocation(rows: Sequence[dict[str, Any]]) -> Table:
    """What each domain or quota should have got and got."""
    cells = []
    for row in rows:
        why = None
        if row["short_tokens"]:
            why = "no more documents" if row["exhausted"] else "the next document would not fit"
        met = row["selected_tokens"] / row["target_tokens"] if row["target_tokens"] else None
        cells.append(
            (
                *(row["domain"], row["bucket_min"], row["bucket_max"], row["target_tokens"], row["selected_tokens"]),
                *(None if met is None else round(100 * met, 1), row["documents"], row["short_tokens"], why),
            )
        )
    columns = (
        *("domain", "from tokens", "below tokens", "target", "tokens selected", "met, %"),
        *("documents", "short", "why"),
    )
    caption = "Targets and what was met, in tokens of whole documents"
    return Table("allocation-table", "targets", caption, columns, cells, {"domain": "name"})


def documents(rows: Sequence[dict[str, Any]]) -> Table:
    """The best and worst documents of each domain."""
    cells = [
        (
            *(row["domain"], "best" if row["best"] else "worst", row["rank"], row["score"], row["selected"]),
            *(row["doc_tokens"], one_line(row["title"], 120) or None, one_line(row["excerpt"], 240), place(row)),
        )
        for row in rows
    ]
    columns = ("domain", "end", "rank", "score", "selected", "tokens", "title", "excerpt", "source")
    kinds = {"domain": "name", "title": "name", "excerpt": "long", "source": "name"}
    return Table("documents-table", "documents", "Documents, by domain and rank", columns, cells, kinds)


def work(record: dict[str, Any]) -> Table:
    """Jobs, seconds and throughput of each stage; rates are of the jobs that this run did itself."""
    rows = []
    for stage, summary in record["stages"].items():
        jobs = [job for job in record["shards"] if job["stage"] == stage and not job["cached"]]
        seconds = sum(job["seconds"] for job in jobs)

        def rate(name: str, jobs: list[dict[str, Any]] = jobs, seconds: float = seconds) -> float | None:
            done = sum(job.get(name, 0) for job in jobs)
            return done / seconds if seconds and done else None

        cells = (stage, summary["run"], summary["cached"], summary["failed"], round(seconds, 2))
        rows.append((*cells, rate("in"), rate("tokens"), rate("bytes")))
    columns = (
        *("stage", "jobs run", "found in the store", "failed", "seconds of work"),
        *("records a second", "tokens a second", "bytes a second"),
    )
    caption = "Seconds of work are summed over jobs, which may run side by side; rates are of the jobs run"
    return Table("work-table", "stages", caption, columns, rows)


def changes(difference: Difference) -> list[Table]:
    """The difference as tables; none that would be empty."""
    domain_names = ("domain", "entered", "gone", "stayed", "tokens_entered", "tokens_gone")
    found = [
        Table(
            "changed-domains-table",
            "domains",
            "Documents of the selection that entered, left and stayed, by domain",
            ("domain", "entered", "left", "stayed", "tokens entered", "tokens left"),
            [tuple(row[name] for name in domain_names) for row in difference.domains],
            {"domain": "name"},
        ),
        Table(
            "changed-documents-table",
            "documents",
            f"Documents that entered or left, at most {MOST_LISTED} of each; rank and score in the run that had them",
            ("change", "domain", "rank", "score", "tokens", "source"),
            [
                (row["change"], row["domain"], row["rank"], row["score"], row["doc_tokens"], place(row))
                for row in difference.documents
            ],
            {"domain": "name", "source": "name"},
        ),
        Table(
            "changed-sources-table",
            "files",
            f"Source files that differ, at most {MOST_LISTED} of each",
            ("change", "file"),
            [(change, uri) for change, uris in difference.sources.items() for uri in uris[:MOST_LISTED]],
            {"file": "name"},
        ),
        Table(
            "changed-settings-table",
            "settings",
            "Settings that differ",
            ("setting", "before", "now"),
            difference.settings,
            dict.fromkeys(("setting", "before", "now"), "name"),
        ),
    ]
    return [table for table in found if table.rows]


def versions(record: dict[str, Any]) -> Table:
    """What computed the results."""
    model = record["model"] or {}
    rows = [(f"model {name}", value) for name, value in model.items() if isinstance(value, str)]
    if model.get("layers_left_out"):
        rows.append(("layers left out", layers_text(model["layers_left_out"])))
    rows += list(record["versions"].items())
    return Table("versions-table", "versions", "Model and versions", ("what", "value"), rows, {"value": "name"})


def configuration(record: dict[str, Any]) -> str:
    """The configuration as YAML, in ASCII, so that nothing in it can be other than what it seems."""
    return str(yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=False, width=110)).rstrip()
