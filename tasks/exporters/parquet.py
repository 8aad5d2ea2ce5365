"""`format: parquet`: `train-00000-of-00003.parquet`, the layout that `datasets.load_dataset(folder)` knows by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from ladm.tasks.exporters.interface import EXPORTED, ExportConfig, Exporter, Part


class ParquetExport(ExportConfig):
    """An entry of the `export:` list: zstd Parquet, one row a document, in row groups of some 16 MiB."""

    format: Literal["parquet"] = "parquet"
    """The name of the format."""


class ParquetExporter(Exporter[ParquetExport]):
    """Writes Parquet."""

    entry = ParquetExport
    how_to_read = "`datasets.load_dataset(folder)`, or any reader of Parquet"

    def names(self, part: Part) -> list[str]:
        """One file."""
        return [f"{part.stem}.parquet"]

    def write(self, part: Part, tables: Iterator[pa.Table]) -> None:
        """Write the rows as they are."""
        (name,) = self.names(part)
        with self.store.parquet_writer(self.path(name), "", EXPORTED) as writer:
            for table in tables:
                writer.write(table)
