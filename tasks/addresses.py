"""Where the source files of a run lie: from the names that documents know them by to their addresses in this run.

Shards hold names alone (`reading/names.py`), so that a corpus may be moved. What people read, exports and `ladm sql`,
shows addresses: they are put in the place of the names at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard, SourceFile, content_key
from ladm.tasks.schema import DOCUMENTS
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store, table_of

ADDRESSES = pa.schema([pa.field("name", pa.string()), pa.field("uri", pa.string())])


def addresses_of(sources: Iterable[Mapping[str, Any]]) -> pa.Table:
    """The addresses (`ADDRESSES`) of files whose names are other, from the `sources` of a run record."""
    pairs = sorted((one["name"], one["uri"]) for one in sources if one.get("name") and one["name"] != one["uri"])
    return table_of({"name": [name for name, _ in pairs], "uri": [uri for _, uri in pairs]}, ADDRESSES)


def write_addresses(store: Store, files: Sequence[SourceFile], path: str) -> list[Shard]:
    """Put the addresses of a run's files into its store, as an input of jobs; none where names are addresses."""
    table = addresses_of(file.as_dict() for file in files)
    if not table.num_rows:
        return []
    key = addresses_key(table)
    with store.parquet_writer(path, key, ADDRESSES) as writer:
        writer.write(table)
    return [writer.shard()]


def addresses_key(addresses: pa.Table) -> str:
    """The key of a file of addresses."""
    return content_key("addresses", addresses.to_pydict())


def read_addresses(store: Store, job: Job) -> pa.Table:
    """The addresses that a job was given."""
    return pa.concat_tables([ADDRESSES.empty_table(), *(store.read_shard(shard) for shard in job.all("addresses"))])


def with_addresses(documents: pa.Table, addresses: pa.Table) -> pa.Table:
    """Documents with addresses in the column `source`, in the place of names."""
    place = documents.schema.get_field_index("source")
    known = pc.index_in(documents["source"], value_set=addresses["name"].combine_chunks())
    source = pc.coalesce(addresses["uri"].take(known), documents["source"])
    return documents.set_column(place, documents.schema.field("source"), source)


def view_of_documents(
    connection: duckdb.DuckDBPyConnection, name: str, store: Store, shards: Sequence[Shard], addresses: pa.Table
) -> None:
    """Make `name` a view over document shards, with addresses in the column `source`.

    The table `<name>_addresses` stays there, for what else holds names.
    """
    duck.make_table(connection, f"{name}_addresses", addresses)
    duck.view_of_shards(connection, f"{name}_by_name", store, shards, DOCUMENTS)
    columns = ", ".join(
        "coalesce(a.uri, d.source) as source" if column == "source" else f'd."{column}"' for column in DOCUMENTS.names
    )
    connection.execute(
        f"create or replace temp view {name} as"
        f" select {columns} from {name}_by_name as d left join {name}_addresses as a on a.name = d.source"
    )
