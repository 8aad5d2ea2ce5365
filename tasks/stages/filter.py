"""The filters of the configuration: drops, before any model runs, the documents that one of them will not have.

What is left of a shard is known by what is left, not by the filters: its key is that of the length filter's shard if no
document was dropped, and else follows from which were. So filters that are added or changed without dropping anything
else leave all that was made of the shard as it is.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ladm.tasks.filters.loading import filters_of_job
from ladm.tasks.filters.sieve import COLUMNS, Sieve
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard, content_key
from ladm.tasks.schema import DOCUMENTS
from ladm.tasks.storage.store import Store

BATCH_DOCUMENTS = 64


def filter_documents(job: Job, store: Store, key: str) -> Outcome:
    """Keep the documents of one shard that come through all filters; no shard is written if there are none.

    The manifest's one file, if there is any, lists the documents that were dropped, each with its reason.
    """
    shard = job.one("documents")
    sieve = Sieve(filters_of_job(job.config["filters"], job.identity))
    masks = [sieve.keep(batch) for batch in store.shard_batches(shard, rows=BATCH_DOCUMENTS, columns=COLUMNS)]
    kept_N = pa.chunked_array(masks, pa.bool_()).combine_chunks()
    kept, kept_bytes = _write(store, shard, kept_N)
    return Outcome(
        counts=Counts(received=shard.rows, kept=kept.rows, dropped=sieve.dropped, quarantined=len(sieve.quarantine)),
        shards=store.kept(kept),
        files=sieve.write_list(store, "filter", key),
        quarantine=sieve.quarantine,
        measures={"bytes": kept_bytes},
    )


def _write(store: Store, shard: Shard, kept_N: pa.Array) -> tuple[Shard, int]:
    """Copy what is left of a shard; also the bytes of its texts."""
    gone = [number for number, kept in enumerate(kept_N.to_pylist()) if not kept]
    key = content_key("documents left of", shard.key, gone) if gone else shard.key
    done = kept_bytes = 0
    with store.shard_writer("filter", key, DOCUMENTS) as writer:
        for batch in store.shard_batches(shard, rows=BATCH_DOCUMENTS):
            left = batch.filter(kept_N.slice(done, batch.num_rows))
            done += batch.num_rows
            kept_bytes += sum(left["bytes"].to_pylist())
            writer.write(pa.Table.from_batches([left]))
    return writer.shard(), kept_bytes


def filter_key_config(filters: list[Any]) -> dict[str, Any]:
    """What the filters compute with."""
    return {"filters": [one.key_config() for one in filters]}


STAGE = Stage(name="filter", version="1", compute=filter_documents, roles=("documents",))
