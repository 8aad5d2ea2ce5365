"""Markdown of text that came from the data: inert, whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ladm.tasks.printable import printable


def plain(text: str) -> str:
    """Text from the data as inert Markdown on one line, at most 120 characters before it is escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#|!])", r"\\\1", printable(str(text), 120))


def table(header: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; columns whose names end with a colon hold numbers."""
    names = header.split(" | ")
    return [
        f"| {' | '.join(name.rstrip(':') for name in names)} |",
        f"|{'|'.join('---:' if name.endswith(':') else '---' for name in names)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
