"""The long lists of a run record, read as they are gone through: the same rows, a few in memory at a time."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ladm.flows.runs.stored_rows import AT_ONCE, StoredRows, jobs_of, jobs_where
from ladm.flows.runs.tables import TABLES

ROWS = 8 * AT_ONCE


def jobs(number: int) -> list[dict[str, Any]]:
    """Jobs as they stand in a record, of two stages by turns."""
    return [
        {
            "stage": ("ingest", "score")[one % 2],
            "shard": f"{one}.jsonl",
            "source": f"/data/{one}.jsonl",
            "cached": one % 3 == 0,
            "key": f"{one:064x}",
            "in": one,
            "kept": one - one % 5,
            "dropped": {"too short": one % 5} if one % 5 else {},
            "quarantined": 0,
            "windows": one,
            "seconds": one / 8,
            "shards": [{"key": f"{one:064x}", "path": f"p/{one}", "bytes": 1, "rows": one, "sha256": f"{one:064x}"}],
            "files": [],
            "quarantine": None,
        }
        for one in range(number)
    ]


def stored(number: int) -> StoredRows:
    table = TABLES["jobs"]
    assert table.long
    content = io.BytesIO()
    with pq.ParquetWriter(content, table.schema) as writer:
        for first in range(0, number, AT_ONCE):
            rows = table.out({"shards": jobs(number)[first : first + AT_ONCE]})
            writer.write(pa.Table.from_pylist(rows, table.schema))
    return StoredRows(content.getvalue(), table.long[1])


def test_the_rows_are_those_that_were_written() -> None:
    rows, written = stored(AT_ONCE + 7), jobs(AT_ONCE + 7)
    assert len(rows) == len(written)
    assert list(rows) == written
    assert rows == written
    assert written == rows
    assert rows != written[:-1]
    assert rows != [*written[:-1], {}]
    assert [rows[3], *rows[-2:]] == [written[3], *written[-2:]]


@pytest.mark.parametrize("make", [stored, jobs])
def test_jobs_of_a_stage_are_found_in_either_form(make: Any) -> None:
    record = {"shards": make(99)}
    assert list(jobs_of(record, "score")) == [job for job in jobs(99) if job["stage"] == "score"]
    assert list(jobs_of(record, "rank")) == []
    assert list(jobs_where(record, "cached", value=False)) == [job for job in jobs(99) if not job["cached"]]


def test_going_through_many_rows_takes_the_memory_of_few() -> None:
    rows = stored(ROWS)
    tracemalloc.start()
    try:
        assert sum(job["in"] for job in rows) == sum(range(ROWS))
        few = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        whole = list(rows)
        assert len(whole) == ROWS
        assert tracemalloc.get_traced_memory()[1] > 3 * few
    finally:
        tracemalloc.stop()
