"""`format: jsonl.zst`: one JSON object a line in the Pile's form, so that it can be ingested again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Literal, cast

import orjson
import pyarrow as pa
import zstandard

from ladm.tasks.exporters.interface import ExportConfig, Exporter, Part


class JsonlExport(ExportConfig):
    """An entry of the `export:` list: `{"text": …, "meta": {"pile_set_name": …, …}}`, zstd with checksums."""

    format: Literal["jsonl.zst"] = "jsonl.zst"
    """The name of the format."""


class JsonlExporter(Exporter[JsonlExport]):
    """Writes JSON lines, compressed."""

    entry = JsonlExport
    how_to_read = "the Pile's form, `text` and `meta`; `datasets.load_dataset(folder)`"

    def names(self, part: Part) -> list[str]:
        """One file."""
        return [f"{part.stem}.jsonl.zst"]

    def write(self, part: Part, tables: Iterator[pa.Table]) -> None:
        """Write one line a row."""
        (name,) = self.names(part)
        compressor = zstandard.ZstdCompressor(level=6, write_checksum=True)
        with (
            self.store.writing(self.path(name)) as file,
            compressor.stream_writer(cast(IO[bytes], file), closefd=False) as stream,
        ):
            for table in tables:
                for row in table.to_pylist():
                    stream.write(orjson.dumps(pile_record(row), option=orjson.OPT_APPEND_NEWLINE))


def pile_record(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the export in the Pile's format.

    The document's own metadata is kept under `meta.original`.
    """
    meta = {name: value for name, value in row.items() if name not in ("text", "domain", "meta")}
    # As it stands: read and written once more it would be nested deeper than what is written may be.
    original = orjson.Fragment(row["meta"]) if row["meta"] else None
    return {"text": row["text"], "meta": {"pile_set_name": row["domain"], **meta, "original": original}}
