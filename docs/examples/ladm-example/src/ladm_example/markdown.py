"""An exporter: one Markdown file a part, a heading a document. `export: [{format: markdown, heading: "##"}]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from ladm.tasks.exporters.interface import ExportConfig, Exporter, Part


class MarkdownExport(ExportConfig):
    """An entry of the `export:` list."""

    format: Literal["markdown"] = "markdown"
    """The name of the format, and of the entry point."""
    heading: str = "#"
    """What stands before a document's place."""


class MarkdownExporter(Exporter[MarkdownExport]):
    """Writes Markdown."""

    entry = MarkdownExport
    how_to_read = "any editor"

    def names(self, part: Part) -> list[str]:
        """One file."""
        return [f"{part.stem}.md"]

    def write(self, part: Part, tables: Iterator[pa.Table]) -> None:
        """Write each document below a heading of its own."""
        (name,) = self.names(part)
        with self.store.writing(self.path(name)) as file:
            for table in tables:
                for row in table.select(["source", "line", "text"]).to_pylist():
                    file.write(f"{self.config.heading} {row['source']}:{row['line']}\n\n{row['text']}\n\n".encode())
