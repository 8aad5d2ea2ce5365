"""The gate: how unlike real text each window of a shard is, from what was measured of its text and its attention.

It is arithmetic on columns that the store has, so another gate puts no window through the model again. What is done
with the distance (which documents are held back, what the others lose in rank) is up to ranking.
"""

from __future__ import annotations

import numpy as np
import orjson

from ladm.tasks.errors import AccountError
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.schema import GATED
from ladm.tasks.scorers.gate import Gate, features_for, gate_distances
from ladm.tasks.storage.store import Store, table_of

NOT_MEASURED = "its text, its attention or its score could not be measured"


def gate(job: Job, store: Store, key: str) -> Outcome:
    """The gate's distance of every window of one shard.

    Inputs: the windows' columns `attention` and `text`, their scores, and the file that the gate stands in. A window
    that one of them lacks, since its value was no number, is dropped here as it was there.
    """
    fitted = Gate.model_validate(orjson.loads(store.read_bytes(job.one("gate").path)))
    attention = store.read_shard(job.one("attention"))
    text = {row["window_id"]: row for table in map(store.read_shard, job.all("text")) for row in table.to_pylist()}
    scored = [store.read_shard(one).select(["window_id", "coherence"]) for one in job.all("scores")]
    coherent = {row["window_id"]: row["coherence"] for table in scored for row in table.to_pylist()}
    rows, features = [], []
    for row in attention.to_pylist():
        if row["window_id"] in text and row["window_id"] in coherent:
            profile_NF = np.array(row["attention_profile"], np.float64).reshape(len(fitted.layers), -1)
            if tuple(row["profile_layers"]) != fitted.layers:
                raise AccountError(f"profiles of layers {row['profile_layers']}, and the gate reads {fitted.layers}")
            features.append(features_for(fitted, profile_NF, text[row["window_id"]], coherent[row["window_id"]]))
            rows.append(row)
    distances = gate_distances(fitted, np.stack(features)).tolist() if features else []
    columns = {name: [row[name] for row in rows] for name in ("window_id", "doc_id")} | {"gate_distance": distances}
    written = store.write_shard("gate", key, table_of(columns, GATED))
    lost = attention.num_rows - len(rows)
    return Outcome(
        counts=Counts(received=attention.num_rows, kept=written.rows, dropped={NOT_MEASURED: lost} if lost else {}),
        shards=store.kept(written),
        measures={"windows": written.rows},
    )


STAGE = Stage(name="gate", version="2", compute=gate, roles=("attention", "text", "scores", "gate"))
