"""Writing one Parquet file of the store batch by batch."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.tasks.errors import AccountError
from ladm.tasks.manifest import Shard
from ladm.tasks.storage.files import HashingFile

ROW_GROUP_BYTES = 16 * 2**20
UNLIKE = ("doc_id", "window_id", "text", "sha256", "rank")
"""Columns in which hardly a value comes twice, as in those of floats: a dictionary of them takes time and space."""


class ShardWriter:
    """Writes one Parquet file batch by batch and knows its rows and bytes when finished."""

    def __init__(self, key: str, path: str, file: HashingFile, schema: pa.Schema) -> None:
        self.key = key
        self.path = path
        self.rows = 0
        self.bytes = 0
        self.sha256 = ""
        self._file = file
        self._schema = schema
        dictionary = [_leaf(field) for field in schema if field.name not in UNLIKE and not _is_float(field)]
        self._writer = pq.ParquetWriter(
            file, schema, compression="zstd", write_page_checksum=True, use_dictionary=dictionary
        )

    def write(self, table: pa.Table) -> None:
        """Append rows, in row groups of some 16 MiB so that readers need not hold the whole file."""
        if not table.num_rows:
            return
        rows_a_group = max(1, int(table.num_rows * ROW_GROUP_BYTES / max(1, table.nbytes)))
        self._writer.write_table(table.cast(self._schema), row_group_size=rows_a_group)
        self.rows += table.num_rows

    def finish(self) -> None:
        """Write the footer and note the size and the checksum."""
        self._writer.close()
        self.bytes = self._file.tell()
        self.sha256 = self._file.sha256

    def shard(self) -> Shard:
        """What a manifest says of the finished file."""
        if not self.bytes:
            raise AccountError("a shard is described only after it is finished")
        return Shard(key=self.key, path=self.path, bytes=self.bytes, rows=self.rows, sha256=self.sha256)


def _is_float(field: pa.Field) -> bool:
    return pa.types.is_floating(field.type) or (pa.types.is_list(field.type) and _is_float(field.type.value_field))


def _leaf(field: pa.Field) -> str:
    """The name by which Parquet knows a column."""
    is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
    return f"{field.name}.list.element" if is_list else str(field.name)
