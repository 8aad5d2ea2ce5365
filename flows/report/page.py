"""The report's page: what the facts say as tables, charts and sentences, put into `page/page.html.jinja`.

The page is one file that asks for nothing: style, script and pictures are in it, and its content security policy
forbids the rest, above all any script but its own. All text goes through the template's escaping.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ladm.flows.ask.query import run_views
from ladm.flows.ask.shown import asked_run
from ladm.flows.report import cells, charts, sentences, tables
from ladm.flows.report.facts import EACH_END, MOST_DOMAINS, Facts, collect, domain_rows, shown_documents
from ladm.flows.report.heatmaps import measure_heatmaps
from ladm.tasks.errors import ConfigError
from ladm.tasks.exporters.selection_text import selection_text
from ladm.tasks.printable import printable
from ladm.tasks.storage.file_systems import io_errors, reason_of
from ladm.tasks.storage.store import Store

MOST_CHARTS = 24
"""Domains, of the most tokens, that have a chart of their scores."""


def write_report(
    store_uri: str,
    run_id: str | None = None,
    out: str | None = None,
    heatmaps: int = 0,
    tell: Callable[[str], None] = print,
) -> str:
    """Make the report of a run and write it.

    Args:
        store_uri: The store.
        run_id: The run; the newest completed one when not given.
        out: A file to write instead of `runs/<run_id>/report.html` in the store.
        heatmaps: Measure the attention of so many documents from either end of each domain's ranking.
        tell: Told of work that takes a while.

    Returns:
        Where the page is.

    Raises:
        UserError: No such store or run, a file that cannot be written, or a model that is not there any more.
    """
    if not 0 <= heatmaps <= EACH_END:
        raise ConfigError(f"--heatmaps: {heatmaps} is not between 0 and {EACH_END}, the documents shown from each end")
    store = Store(store_uri)
    record = asked_run(store, run_id, tell)
    if heatmaps:
        _measure(store, record, heatmaps, tell)
    content = page(collect(store, record)).encode("utf-8", "backslashreplace")
    if out is None:
        path = f"runs/{record['run_id']}/report.html"
        try:
            store.write_bytes(path, content)
        except io_errors() as error:
            why = reason_of(error)
            raise ConfigError(f"--store: {store_uri!r} cannot be written ({why}); give a file by --out") from None
        return store.url(path)
    try:
        Path(out).write_bytes(content)
    except OSError as error:
        raise ConfigError(f"--out: {out!r} cannot be written ({error.strerror}); give another file") from None
    return out


def _measure(store: Store, record: dict[str, Any], each_end: int, tell: Callable[[str], None]) -> None:
    if "rank" not in record["stages"] or record["status"] != "completed":
        raise ConfigError(f"--heatmaps: run {record['run_id']} ranked nothing, so it has no best documents to picture")
    with run_views(store, record) as connection:
        rows = shown_documents(connection, domain_rows(connection), each_end)
        measure_heatmaps(store, connection, record, [row["window_id"] for row in rows], tell)


def page(facts: Facts) -> str:
    """The whole page as HTML."""
    record = facts.record
    script = _part("table.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    cuts = {row["domain"]: row["threshold"] for row in facts.domains}
    charted = [row["domain"] for row in facts.domains[:MOST_CHARTS] if row["domain"] in facts.scores]
    titles = {row["window_id"]: row for row in facts.documents}
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            record=record,
            style=Markup(_part("style.css")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
            sections=_sections(facts),
            headline=sentences.headline(facts),
            failures=tables.failures(record),
            funnel=tables.funnel(facts.flow),
            funnel_chart=charts.funnel_chart(facts.flow),
            quarantine=tables.quarantine(facts.quarantine),
            domains=tables.domains(facts.domains),
            scores_charts=[charts.scores_chart(name, facts.scores[name], cuts[name]) for name in charted],
            charts_left_out=len(facts.domains) > MOST_CHARTS,
            method=sentences.method_text(record),
            selection=selection_text(record["config"]["select"], printable).replace("`", ""),
            allocation=tables.allocation(facts.allocation),
            allocation_chart=charts.allocation_chart(
                facts.allocation, [sentences.target_name(row) for row in facts.allocation]
            )
            if facts.allocation
            else "",
            each_end=EACH_END,
            domains_left_out=max(0, len(facts.domains) - MOST_DOMAINS),
            documents=tables.documents(facts.documents),
            heatmaps=[
                (charts.heatmap_chart(one, sentences.title_of(titles[name])), sentences.place_of(titles[name]))
                for name, one in facts.heatmaps.items()
            ],
            work=tables.work(record),
            work_text=sentences.work_text(record),
            jobs_chart=charts.jobs_chart(record["stages"]),
            difference=facts.difference,
            changes=tables.changes(facts.difference) if facts.difference else [],
            changes_text=sentences.changes_text(facts.difference) if facts.difference else "",
            versions=tables.versions(record),
            configuration=tables.configuration(record),
        )
    )


def _sections(facts: Facts) -> list[tuple[str, str]]:
    """Anchor and title of the sections that the page has."""
    ranked = [("scores", "Scores"), ("allocation", "Allocation"), ("documents", "Documents")] if facts.domains else []
    failed = [("failures", "Failures")] if facts.record["failures"] else []
    work = [("work", "Time and cache"), ("changes", "Changes"), ("configuration", "Configuration")]
    return [*failed, ("funnel", "Funnel"), *ranked, *work]


def _part(name: str) -> str:
    return files("ladm.flows.report").joinpath("page", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ladm.flows.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    environment.filters |= {"shown": cells.shown, "sortable": cells.sortable}
    return environment
