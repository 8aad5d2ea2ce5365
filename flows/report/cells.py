"""A table of the report, and how its cells are shown. Text from the data comes out printable, on one line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ladm.flows.report.facts import EXCERPT_CHARACTERS
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

    @cached_property
    def looks(self) -> tuple[str, ...]:
        """How each column is laid out and sorted: `number`, `long`, `name` or nothing in particular."""
        return tuple(self._look(number, column) for number, column in enumerate(self.columns))

    def _look(self, number: int, column: str) -> str:
        cells = [row[number] for row in self.rows if row[number] is not None]
        if cells and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells):
            return "number"
        return self.kinds.get(column, "")


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


def place(row: dict[str, Any]) -> str:
    """A record's source, and its line where that is known."""
    return row["source"] if row["line"] is None else f"{row['source']}:{row['line']}"
