"""`format: mds`: shards that `streaming.StreamingDataset` of mosaicml-streaming reads, one row a sample.

A shard is: the number of samples and each one's offset (uint32, one more for the end), the columns as JSON, and the
samples; a sample is the sizes of its columns of variable size (uint32) and then the columns, sorted by name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import orjson

from ladm.tasks.errors import AccountError
from ladm.tasks.exporters.interface import Part
from ladm.tasks.exporters.tokens import Row, TokenExport, TokenExporter
from ladm.tasks.storage.file_systems import naming

ITEMS = {"doc_ids": "json", "lengths": "ndarray:int32", "starts": "ndarray:int64", "tokens": "ndarray:int32"}
"""Column → encoding, for rows of any length; `tokens` is the column that LLM Foundry looks for."""


class MdsExport(TokenExport):
    """An entry of the `export:` list: columns `tokens`, `doc_ids` and, of each run of tokens, `starts`, `lengths`."""

    format: Literal["mds"] = "mds"
    """The name of the format."""


class MdsExporter(TokenExporter[MdsExport]):
    """Writes MDS shards and the index of each split."""

    entry = MdsExport
    how_to_read = "`streaming.StreamingDataset(local=folder, split=…)`; column `tokens`"

    @property
    def file_dtype(self) -> np.dtype[Any]:
        """int32, which PyTorch takes as it is."""
        return np.dtype(np.int32)

    def names(self, part: Part) -> list[str]:
        """The shard and its sidecar."""
        return [f"{part.split}/{_shard_name(part)}", self.pieces_name(part)]

    def write_rows(self, part: Part, rows: Iterator[Row]) -> None:
        """Write one shard; the samples go through a temporary file, since their offsets come first."""
        head = orjson.dumps(self._columns(), option=orjson.OPT_SORT_KEYS)
        sizes: list[int] = []
        with tempfile.TemporaryFile(prefix="ladm-mds-") as samples:
            for row in rows:
                sample = self._sample(row)
                with naming(tempfile.gettempdir()):
                    sizes.append(samples.write(sample))
            with naming(tempfile.gettempdir()):
                samples.seek(0)
            offsets = np.cumsum([4 + 4 * (len(sizes) + 1) + len(head), *sizes])
            if offsets[-1] >= 2**32:
                raise AccountError(f"{part.stem}: {offsets[-1]} bytes are too many for a shard of MDS")
            with self.store.writing(self.path(self.names(part)[0])) as file:
                file.write(np.uint32(len(sizes)).tobytes() + offsets.astype(np.uint32).tobytes() + head)
                while block := samples.read(2**20):
                    file.write(block)

    def finish(self, parts: Sequence[Part]) -> list[str]:
        """Write each split's `index.json`."""
        names = super().finish(parts)
        for split in dict.fromkeys(part.split for part in parts):
            shards = [self._shard(part) for part in parts if part.split == split]
            names.append(f"{split}/index.json")
            self.store.write_bytes(self.path(names[-1]), orjson.dumps({"version": 2, "shards": shards}))
        return names

    def _shard(self, part: Part) -> dict[str, Any]:
        """What the index says of a shard, which may be an earlier run's."""
        path = self.path(self.names(part)[0])
        return {
            **self._columns(),
            "raw_data": {"basename": _shard_name(part), "bytes": self.store.size(path), "hashes": {}},
            "zip_data": None,
            "samples": int.from_bytes(self.store.read_bytes(path, end=4), "little"),
        }

    def _columns(self) -> dict[str, Any]:
        encodings = ITEMS | ({"tokens": f"ndarray:int32:{self.config.pack.length}"} if self.config.pack else {})
        return {
            "version": 2,
            "format": "mds",
            "compression": None,
            "hashes": [],
            "size_limit": None,
            "column_names": list(encodings),
            "column_encodings": list(encodings.values()),
            "column_sizes": [None, None, None, 4 * self.config.pack.length if self.config.pack else None],
        }

    def _sample(self, row: Row) -> bytes:
        tokens = row.ids.astype("<i4")
        columns = [
            orjson.dumps(row.doc_ids),
            _with_shape(np.array(row.lengths, "<i4")),
            _with_shape(np.array(row.starts, "<i8")),
            tokens.tobytes() if self.config.pack else _with_shape(tokens),
        ]
        sizes = [len(column) for column in (columns[:-1] if self.config.pack else columns)]
        return b"".join([np.array(sizes, "<u4").tobytes(), *columns])


def _with_shape(values: Any) -> bytes:
    """A vector as MDS encodes it when its length is not fixed: number of axes, length, values."""
    length = len(values)
    width = next(width for width in range(4) if length < 1 << (8 << width))
    return bytes([1 << 2 | width]) + length.to_bytes(1 << width, "little") + bytes(values.tobytes())


def _shard_name(part: Part) -> str:
    return f"shard.{part.number:05d}.mds"
