"""`format: npy`: flat arrays of token ids without a header, as OLMo-core's `NumpyFSLDataset` and others map them.

Beside each lies `….csv.gz` with start, end, document id, source and line of every run of tokens, in the order and form
of Dolma's tokenizer, from which OLMo-core takes the documents' boundaries.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from ladm.tasks.exporters.interface import Part
from ladm.tasks.exporters.tokens import Row, TokenExport, TokenExporter


class NpyExport(TokenExport):
    """An entry of the `export:` list: flat uint16 or uint32, the smallest that holds the vocabulary."""

    format: Literal["npy"] = "npy"
    """The name of the format."""


class NpyExporter(TokenExporter[NpyExport]):
    """Writes flat arrays."""

    entry = NpyExport
    how_to_read = (
        "flat token ids without a header, `numpy.memmap(file, dtype)`; OLMo-core's `NumpyFSLDataset`; type and "
        "end-of-document token in `tokens.json`, boundaries in `.csv.gz`"
    )

    @property
    def file_dtype(self) -> np.dtype[Any]:
        """uint16, or uint32 if that is too small."""
        return self.dtype(np.uint32)

    def names(self, part: Part) -> list[str]:
        """Tokens, boundaries and sidecar."""
        return [f"{part.stem}.npy", f"{part.stem}.csv.gz", self.pieces_name(part)]

    def write_rows(self, part: Part, rows: Iterator[Row]) -> None:
        """Write tokens and boundaries as they come."""
        tokens, boundaries, _ = map(self.path, self.names(part))
        begin = 0
        with (
            self.store.writing(tokens) as file,
            self.store.writing(boundaries) as packed,
            gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as lines,
            io.TextIOWrapper(lines, encoding="utf-8", newline="") as text,
        ):
            writer = csv.writer(text, lineterminator="\n")
            for row in rows:
                file.write(row.ids.astype(self.file_dtype).tobytes())
                start = begin
                for doc_id, length, source in zip(row.doc_ids, row.lengths, row.sources, strict=True):
                    writer.writerow([start, start + length, doc_id, *source])
                    start += length
                begin += len(row.ids)
