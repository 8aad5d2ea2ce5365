"""The report's sentences and short texts. Text from the data comes out printable; the template escapes it."""

from __future__ import annotations

from typing import Any

from ladm.flows.report.cells import one_line, place
from ladm.flows.report.changes import Difference
from ladm.flows.report.charts import short_number
from ladm.flows.report.facts import Facts
from ladm.tasks.printable import cell_text


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


def method_text(record: dict[str, Any]) -> str:
    """How the scores were made, in a sentence."""
    config, model = record["config"], record["model"] or {"reference": "none"}
    scorer, select = config["scorer"], config["select"]
    by = "its CDS" if select["rank_by"] == "ladm" else f"the score {select['rank_by']}"
    return (
        f"A document's score is the {select['document_score']} of {by} over its windows of "
        f"{config['window']['length']:,} tokens, measured in {model['reference']} (formula {scorer['formula']}, "
        f"ablation {scorer['ablation']}, layers {layers_text(scorer['layers'])}, spans of {scorer['span']}). The cut "
        "is the lowest score selected."
    )


def layers_text(layers: object) -> str:
    """Layers, or the word that stands for them."""
    return ", ".join(map(str, layers)) if isinstance(layers, list) else str(layers)


def target_name(row: dict[str, Any]) -> str:
    """A domain, or a quota's domain and document lengths, as a short label."""
    name = cell_text(row["domain"], 24)
    if row["bucket_min"] is None and row["bucket_max"] is None:
        return name
    end = "" if row["bucket_max"] is None else short_number(row["bucket_max"])
    return f"{name} {short_number(row['bucket_min'] or 0)}–{end}"


def title_of(row: dict[str, Any]) -> str:
    """A document's title, or where it is from."""
    return one_line(row["title"], 120) or place({**row, "source": row["source"].rsplit("/", 1)[-1]})


def place_of(row: dict[str, Any]) -> str:
    """Where a document stands: its rank, domain, window and source."""
    end = "among the best" if row["best"] else "among the worst"
    return f"{one_line(row['domain'], 80)}, rank {row['rank']:,} ({end}), window {row['window_id']}, {place(row)}"


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
