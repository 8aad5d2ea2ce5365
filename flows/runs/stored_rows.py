"""The rows of a run record's table as they lie in Parquet: read anew by whoever goes through them, a few at a time.

The record of the run before is there all through a run, and of its jobs little is asked. As dictionaries they would
take more memory than all that the run itself keeps.
"""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Row = dict[str, Any]
AT_ONCE = 2_000
"""Rows that are in memory together."""


class StoredRows(Sequence[Row]):
    """The rows of a table in Parquet, each as `told` makes it."""

    def __init__(self, content: bytes, told: Callable[[Row], Row]) -> None:
        """Keep a Parquet file's bytes, which are known to be sound."""
        self._content, self._told = content, told
        self._rows = int(pq.read_metadata(io.BytesIO(content)).num_rows)

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[Row]:
        for batch in self._batches():
            yield from map(self._told, batch.to_pylist())

    def where(self, column: str, value: object) -> Iterator[Row]:
        """The rows in which a column of the table has a value."""
        for batch in self._batches():
            yield from map(self._told, batch.filter(pc.equal(batch[column], value)).to_pylist())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        yield from pq.ParquetFile(io.BytesIO(self._content)).iter_batches(AT_ONCE)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        return list(self)[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # its rows are no constants


def jobs_of(record: Mapping[str, Any], stage: str) -> Iterable[Row]:
    """The jobs of a stage in a run's record, whether its jobs are in memory or not."""
    return jobs_where(record, "stage", stage)


def jobs_where(record: Mapping[str, Any], column: str, value: object) -> Iterable[Row]:
    """The jobs in which a column of `jobs.parquet`, which has the same name in the record, has a value."""
    jobs = record["shards"]
    return jobs.where(column, value) if isinstance(jobs, StoredRows) else (one for one in jobs if one[column] == value)
