"""DuckDB over the store: what is held in memory joins like any other table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ladm.flows.ask.query import _view_with_columns_added
from ladm.tasks.schema import RANKING
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store, table_of


def test_a_join_may_filter_tables_from_memory(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    number = 47
    rows = {name: [1] * number for name in RANKING.names} | {
        "doc_id": [f"{one:02}" for one in range(number)],
        "domain": [f"domain {one % 6}" for one in range(number)],
        "score": [float(one) for one in range(number)],
        "doc_tokens_exact": [True] * number,
        "selected": [one % 2 == 0 for one in range(number)],
        "role": ["long"] * number,
    }
    shard = store.write_shard("rank", "key", table_of(rows, RANKING))
    with duck.connect(store) as connection:
        _view_with_columns_added(connection, "ranking", store, [shard], RANKING, {"role": "'long'"})
        duck.set_variables(connection, {"bins": 5})
        plan = connection.execute("explain from ranking").fetchall()
        found = connection.execute(duck.statement("report_scores")).to_arrow_table().to_pylist()
    # A join of some sizes pushes a Bloom filter down, which a scan of Arrow's tables refuses.
    assert not any("ARROW_SCAN" in text for row in plan for text in row)
    assert sum(row["selected"] + row["others"] for row in found) == number


def test_a_table_of_no_row_has_its_columns(tmp_path: Path) -> None:
    with duck.connect(Store(str(tmp_path))) as connection:
        duck.make_table(connection, "nothing", pa.schema([("a", pa.int64()), ("b", pa.string())]).empty_table())
        assert connection.execute("from nothing").to_arrow_table().column_names == ["a", "b"]
