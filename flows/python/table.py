"""Rows that pandas, polars, DuckDB and Arrow take as they are, computed when they are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ladm.tasks.printable import cell_text

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 10
"""Rows of a printed table."""
WIDTH = 160
"""Characters of a line of a printed table."""
LONGEST_CELL = 72

Opening = Callable[[], contextlib.AbstractContextManager[pa.RecordBatchReader]]


class Table:
    """The rows of a query, or of a computation.

    It speaks Arrow's C stream interface, so `polars.DataFrame(table)`, `duckdb.from_arrow(table.to_arrow())` and
    `pyarrow.table(table)` take it without a copy. What a query gives is computed anew each time that it is asked for.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = opening

    @classmethod
    def of(cls, rows: pa.Table) -> Table:
        """A table of rows that are there already."""
        return cls(lambda: contextlib.nullcontext(pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches())))

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        with self._opening() as reader:
            return reader.schema

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.schema.names)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, some thousands at a time: for what does not fit in memory."""
        with self._opening() as reader:
            yield from reader

    def to_arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        with self._opening() as reader:
            return reader.read_all()

    def to_pandas(self, **options: Any) -> pd.DataFrame:
        """All rows as a pandas frame; options are those of `pyarrow.Table.to_pandas`."""
        frame: pd.DataFrame = self.to_arrow().to_pandas(**options)
        return frame

    def to_pylist(self) -> list[dict[str, Any]]:
        """All rows as dicts."""
        rows: list[dict[str, Any]] = self.to_arrow().to_pylist()
        return rows

    def head(self, rows: int = SHOWN_ROWS) -> pa.Table:
        """The first rows; no more are computed than are needed."""
        found: list[pa.RecordBatch] = []
        with self._opening() as reader:
            while sum(batch.num_rows for batch in found) < rows and (batch := next(reader, None)) is not None:
                found.append(batch)
            return pa.Table.from_batches(found, schema=reader.schema).slice(0, rows)

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self.batches())

    def __bool__(self) -> bool:
        """A table is one, also without rows; nothing is counted to know it."""
        return True

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        opened = contextlib.ExitStack()
        reader = opened.enter_context(self._opening())

        def batches() -> Iterator[pa.RecordBatch]:
            with opened:
                yield from reader

        return pa.RecordBatchReader.from_batches(reader.schema, batches()).__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        shown, more = self._beginning()
        return _as_text(shown) + (f"\nthe first {SHOWN_ROWS} rows; there are more" if more else "")

    def _repr_html_(self) -> str:
        shown, more = self._beginning()
        head = "".join(f"<th>{escape(cell_text(name))}</th>" for name in shown.column_names)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell_text(cell, LONGEST_CELL))}</td>' for cell in row.values())}</tr>"
            for row in shown.to_pylist()
        )
        told = f"<p>the first {SHOWN_ROWS} rows; there are more</p>" if more else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{told}"

    def _beginning(self) -> tuple[pa.Table, bool]:
        """The rows that are shown, and whether there are more."""
        first = self.head(SHOWN_ROWS + 1)
        return first.slice(0, SHOWN_ROWS), first.num_rows > SHOWN_ROWS


def _as_text(rows: pa.Table) -> str:
    """Rows as a table of characters; a cell that is too long is cut."""
    from rich import box  # noqa: PLC0415  (drawn only where somebody looks)
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape as as_it_stands  # noqa: PLC0415
    from rich.table import Table as Drawn  # noqa: PLC0415

    if not rows.num_columns:
        return "no columns"
    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False)
    for field in rows.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        drawn.add_column(as_it_stands(cell_text(field.name)), justify="right" if number else "left", overflow="fold")
    for row in zip(*(rows[place].to_pylist() for place in range(rows.num_columns)), strict=True):
        drawn.add_row(*(as_it_stands(cell_text(cell, LONGEST_CELL)) for cell in row))
    console = Console(width=WIDTH, no_color=True, force_terminal=False, force_jupyter=False)
    with console.capture() as captured:
        console.print(drawn)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join(line for line in lines if line)
