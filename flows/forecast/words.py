"""A forecast for people: a table of the stages, and what a run comes to."""

from __future__ import annotations

import sys

from rich.console import Console as RichConsole
from rich.table import Table

from ladm.flows.forecast.forecast import Forecast

FROM = {
    "past runs": "by the speeds of this store's past runs",
    "probe": "by a short probe: no past run of this store scored like this",
    "nothing": "",
}


def print_forecast(found: Forecast) -> None:
    """The forecast, on stdout."""
    out = RichConsole(file=sys.stdout, soft_wrap=False, width=None if sys.stdout.isatty() else 110)
    table = Table(title=f"a run up to {found.until} on {found.store}", title_justify="left")
    table.add_column("stage")
    for name in ("cached", "to do", "records", "time", "written"):
        table.add_column(name, justify="right")
    for one in found.stages:
        cells = [f"{one.cached:,}", f"{one.todo:,}", f"{one.records:,}", time_of(one.seconds), size_of(one.bytes)]
        table.add_row(one.stage, *cells)
    out.print(table)
    for line in lines_of(found):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def lines_of(found: Forecast) -> list[str]:
    """What a run comes to, line by line."""
    if not any(one.todo for one in found.stages):
        return ["nothing is left to do"]
    lines = [
        f"to read or cut: {found.documents:,} documents; to score: {found.windows:,} windows, {found.tokens:,} tokens"
    ]
    if found.speeds_from != "nothing":
        gpu = "" if found.gpu_hours is None else f", {found.gpu_hours:,.2f} GPU hours"
        cost = "" if found.cost is None else f", {found.cost:,.2f} at the rate given"
        lines.append(f"about {time_of(found.seconds)}{gpu}{cost} ({FROM[found.speeds_from]})")
    lines.append(f"about {size_of(found.bytes)} to be written")
    return lines + [f"why: {reason}" for reason in found.reasons]


def time_of(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:,.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:,.1f} min"
    return f"{seconds / 3600:,.1f} h"


def size_of(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
