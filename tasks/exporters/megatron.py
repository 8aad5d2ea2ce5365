"""`format: megatron`: `.bin` and `.idx`, which megatron-core's `IndexedDataset` opens by their common prefix.

The tokens lie one after the other in `.bin`. `.idx` holds the lengths of the sequences, where each begins, and at
which sequence each document of the index begins. A row is a document of the index and a run of tokens of one document
a sequence, so that packed rows keep the boundaries; what fills a row up is a sequence of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from ladm.tasks.exporters.interface import Part
from ladm.tasks.exporters.tokens import Row, TokenExport, TokenExporter

MAGIC = b"MMIDIDX\x00\x00"
CODES = {"int32": 4, "uint16": 8}
"""How the index names the type of the ids."""


class MegatronExport(TokenExport):
    """An entry of the `export:` list: indexed datasets, one a part."""

    format: Literal["megatron"] = "megatron"
    """The name of the format."""


class MegatronExporter(TokenExporter[MegatronExport]):
    """Writes `.bin` and `.idx`."""

    entry = MegatronExport
    how_to_read = "`megatron.core.datasets.indexed_dataset.IndexedDataset(prefix of a .bin)`; types in `tokens.json`"

    @property
    def file_dtype(self) -> np.dtype[Any]:
        """uint16, or int32 if that is too small: Megatron knows no uint32."""
        return self.dtype(np.int32)

    def names(self, part: Part) -> list[str]:
        """Tokens, index and sidecar."""
        return [f"{part.stem}.bin", f"{part.stem}.idx", self.pieces_name(part)]

    def write_rows(self, part: Part, rows: Iterator[Row]) -> None:
        """Write the tokens as they come, and then the index."""
        lengths: list[int] = []
        documents = [0]
        tokens, index, _ = map(self.path, self.names(part))
        with self.store.writing(tokens) as file:
            for row in rows:
                file.write(row.ids.astype(self.file_dtype).tobytes())
                lengths += row.lengths
                if room := len(row.ids) - sum(row.lengths):
                    lengths.append(room)
                documents.append(len(lengths))
        begins = np.cumsum([0, *lengths[:-1]], dtype=np.int64) * self.file_dtype.itemsize
        with self.store.writing(index) as file:
            file.write(MAGIC + struct.pack("<QBQQ", 1, CODES[self.file_dtype.name], len(lengths), len(documents)))
            file.write(np.array(lengths, "<i4").tobytes() + begins.tobytes() + np.array(documents, "<i8").tobytes())
