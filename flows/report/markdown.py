"""The gist of a report as Markdown, for Prefect's page, which shows it wherever the report itself lies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ladm.flows.report.facts import Facts
from ladm.flows.report.sentences import headline, target_name, work_text
from ladm.tasks.printable import cell_text

MOST_ROWS = 30
SPECIAL = re.compile(r"([!-/:-@\[-`{-~])")
"""ASCII's punctuation, all of which Markdown lets be escaped."""


def in_markdown(facts: Facts) -> str:
    """Figures, the funnel, the targets and the reasons for quarantine of a run, in a few tables."""
    record = facts.record
    parts = [
        " · ".join(f"{plain(name)}: **{plain(value)}**" for name, value in headline(facts)),
        plain(work_text(record)),
        "## Funnel",
        _table(
            ("stage", "in", "kept", "dropped", "quarantined", "because"),
            (
                (
                    *(one.stage, one.received, one.kept, sum(one.dropped.values()), one.quarantined),
                    ", ".join(f"{number:,} {reason}" for reason, number in one.dropped.items()),
                )
                for one in facts.flow
            ),
        ),
    ]
    if facts.allocation:
        rows = [
            (target_name(row), row["target_tokens"], row["selected_tokens"], row["short_tokens"], row["documents"])
            for row in facts.allocation
        ]
        parts += ["## Targets", _table(("domain", "target tokens", "selected", "short of", "documents"), rows)]
    if facts.quarantine:
        quarantined = [(row["stage"], row["reason"], row["records"], row["source"]) for row in facts.quarantine]
        parts += ["## Quarantine", _table(("stage", "reason", "records", "first in"), quarantined)]
    return "\n\n".join(parts)


def plain(text: object) -> str:
    """Text from anywhere, such that Markdown shows it as it is."""
    return SPECIAL.sub(r"\\\1", cell_text(text))


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    found = list(rows)
    lines = ["| " + " | ".join(plain(name) for name in columns) + " |", "|" + "---|" * len(columns)]
    for row in found[:MOST_ROWS]:
        cells = (f"{cell:,}" if isinstance(cell, int) else "" if cell is None else cell for cell in row)
        lines.append("| " + " | ".join(plain(cell) for cell in cells) + " |")
    if len(found) > MOST_ROWS:
        lines += ["", f"and {len(found) - MOST_ROWS:,} more"]
    return "\n".join(lines)
