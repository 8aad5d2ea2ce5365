"""The report's tables and sentences. Text from the data comes out printable, on one line; the template escapes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from ladm.flows.report.changes import MOST_LISTED, Difference
from ladm.flows.report.charts import short_number
from ladm.flows.report.facts import EXCERPT_CHARACTERS, Facts, StageFlow
from ladm.tasks.printable import cell_text


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by each column and filtered by words."""

    name: str
    """Its id in the page."""
    what: str
    """What its rows are."""
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    kinds: dict[str, str] = field(default_factory=dict)
    """Column → `long` or `name`, for text that needs room; a column of numbers is known by its cells."""

    def kind(self, column: int) -> str:
        """How the column is laid out and sorted: `number`, `long`, `name` or nothing in particular."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        if cells and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells):
            return "number"
        return self.kinds.get(self.columns[column], "")


def shown(cell: object) -> str:
    """A cell for people."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 and math.isfinite(cell) else f"{cell:.4g}"
    return "\n".join(cell_text(line, EXCERPT_CHARACTERS) for line in str(cell).split("\n"))


def sortable(cell: object) -> str:
    """What a cell is sorted by; empty for one that is not there."""
    return "" if cell is None else shown(cell) if isinstance(cell, str | bool) else repr(cell)


def one_line(text: str | None, longest: int = 300) -> str:
    """Text from the data on one line, its blanks run together."""
    return cell_text(" ".join((text or "").split()), longest)


# -- what the page opens with ----------------------------------------------------------------------------------


def headline(facts: Facts) -> list[tuple[str, str]]:
    """The figures that matter most."""
    record = facts.record
    rank = record["stages"].get("rank", {})
    found: list[tuple[str, str]] = []
    if "selected_documents" in rank:
        found.append(("documents selected", f"{rank['selected_documents']:,} of {rank['documents']:,}"))
        found.append(("tokens selected", f"{short_number(rank['selected_tokens'])} of {short_number(rank['tokens'])}"))
        found.append(("domains", f"{rank['domains']:,}"))
    found.append(("windows scored in this run", f"{record['windows_scored']:,}"))
    found.append(("source files", f"{len(record['sources']):,}"))
    found.append(("quarantined", f"{sum(one.quarantined for one in facts.flow):,}"))
    found.append(("duration", duration(record["seconds"])))
    return found


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def failures(record: dict[str, Any]) -> Table | None:
    """The jobs that failed for good."""
    rows = [(one["stage"], one["shard"], one["error"], one["source"]) for one in record["failures"]]
    if not rows:
        return None
    columns = ("stage", "shard", "error", "source")
    return Table("failures-table", "failures", "Failed for good", columns, rows, {"error": "long", "source": "name"})


# -- the funnel --------------------------------------------------------------------------------------------------


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
        (row["stage"], row["reason"], row["records"], row["files"], _place(row), one_line(row["excerpt"]))
        for row in rows[:MOST_LISTED]
    ]
    caption = 'Reasons, with the first place of each; all of it: ladm sql "from quarantine"'
    columns = ("stage", "reason", "records", "files", "first at", "excerpt")
    kinds = {"reason": "name", "first at": "name", "excerpt": "long"}
    return Table("quarantine-table", "reasons", caption, columns, shown_rows, kinds)


def _place(row: dict[str, Any]) -> str:
    return row["source"] if row["line"] is None else f"{row['source']}:{row['line']}"


# -- scores, allocation, documents -------------------------------------------------------------------------------


def method_text(record: dict[str, Any]) -> str:
    """How the scores were made, in a sentence."""
    config, model = record["config"], record["model"] or {"reference": "none"}
    scorer, select = config["scorer"], config["select"]
    by = "its CDS" if select["rank_by"] == "ladm" else f"the score {select['rank_by']}"
    return (
        f"A document's score is the {select['document_score']} of {by} over its windows of "
        f"{config['window']['length']:,} tokens, measured in {model['reference']} (formula {scorer['formula']}, "
        f"ablation {scorer['ablation']}, layers {_layers(scorer['layers'])}, spans of {scorer['span']}). The cut is "
        "the lowest score selected."
    )


def _layers(layers: object) -> str:
    return ", ".join(map(str, layers)) if isinstance(layers, list) else str(layers)


def domains(rows: Sequence[dict[str, Any]]) -> Table:
    """Each domain's documents, scores and cut."""
    names = (
        *("domain", "documents", "tokens", "selected_documents", "selected_tokens"),
        *("lowest", "middle", "highest", "threshold"),
    )
    columns = ("domain", "documents", "tokens", "selected", "tokens selected", "lowest", "median", "highest", "cut")
    cells = [tuple(row[name] for name in names) for row in rows]
    return Table("domains-table", "domains", "Scores of each domain's documents", columns, cells, {"domain": "name"})


def target_name(row: dict[str, Any]) -> str:
    """A domain, or a quota's domain and document lengths, as a short label."""
    name = cell_text(row["domain"], 24)
    if row["bucket_min"] is None and row["bucket_max"] is None:
        return name
    end = "" if row["bucket_max"] is None else short_number(row["bucket_max"])
    return f"{name} {short_number(row['bucket_min'] or 0)}–{end}"


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


def title_of(row: dict[str, Any]) -> str:
    """A document's title, or where it is from."""
    return one_line(row["title"], 120) or _place({**row, "source": row["source"].rsplit("/", 1)[-1]})


def place_of(row: dict[str, Any]) -> str:
    """Where a document stands: its rank, domain, window and source."""
    end = "among the best" if row["best"] else "among the worst"
    return f"{one_line(row['domain'], 80)}, rank {row['rank']:,} ({end}), window {row['window_id']}, {_place(row)}"


def documents(rows: Sequence[dict[str, Any]]) -> Table:
    """The best and worst documents of each domain."""
    cells = [
        (
            *(row["domain"], "best" if row["best"] else "worst", row["rank"], row["score"], row["selected"]),
            *(row["doc_tokens"], one_line(row["title"], 120) or None, one_line(row["excerpt"], 240), _place(row)),
        )
        for row in rows
    ]
    columns = ("domain", "end", "rank", "score", "selected", "tokens", "title", "excerpt", "source")
    kinds = {"domain": "name", "title": "name", "excerpt": "long", "source": "name"}
    return Table("documents-table", "documents", "Documents, by domain and rank", columns, cells, kinds)


# -- work, changes, configuration --------------------------------------------------------------------------------


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


def work_text(record: dict[str, Any]) -> str:
    """How much of the run was already there."""
    run = sum(summary["run"] for summary in record["stages"].values())
    cached = sum(summary["cached"] for summary in record["stages"].values())
    windows = record["stages"].get("score", {}).get("windows", 0)
    text = f"The run took {duration(record['seconds'])}: {run:,} jobs were run, {cached:,} were found in the store."
    if windows:
        text += f" Of {windows:,} windows, {record['windows_scored']:,} were scored in this run."
    return text


def changes_text(difference: Difference) -> str:
    """The difference in a sentence."""
    counted = ", ".join(f"{len(files):,} {change}" for change, files in difference.sources.items())
    text = f"Source files: {counted}. {len(difference.settings):,} settings differ."
    if not difference.comparable:
        return f"{text} The previous run's documents are gone from the store, so the selections cannot be compared."
    entered, gone, stayed = (sum(row[name] for row in difference.domains) for name in ("entered", "gone", "stayed"))
    return f"{text} Of the selection, {entered:,} documents entered, {gone:,} left and {stayed:,} stayed."


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
                (row["change"], row["domain"], row["rank"], row["score"], row["doc_tokens"], _place(row))
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
        rows.append(("layers left out", _layers(model["layers_left_out"])))
    rows += list(record["versions"].items())
    return Table("versions-table", "versions", "Model and versions", ("what", "value"), rows, {"value": "name"})


def configuration(record: dict[str, Any]) -> str:
    """The configuration as YAML, in ASCII, so that nothing in it can be other than what it seems."""
    return str(yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=False, width=110)).rstrip()
