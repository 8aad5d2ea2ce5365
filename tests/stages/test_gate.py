"""The stage `gate`: distances from columns that the store has, with coherence where the gate reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest

from ladm.tasks.evaluation.gate import Windows, fit_gate
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.schema import SCORES
from ladm.tasks.scorers import coherence
from ladm.tasks.scorers.distance_profile import FEATURES
from ladm.tasks.scorers.gate import Gate, gate_distances, gate_features
from ladm.tasks.scorers.text import NAMES
from ladm.tasks.stages.gate import NOT_MEASURED, gate
from ladm.tasks.storage.store import Store, table_of

LAYERS = (3, 4)
WINDOWS = 40
CHANCE = np.random.default_rng(0)
PROFILE = CHANCE.normal(-5, 1, (WINDOWS, len(LAYERS), len(FEATURES))).astype(np.float32)
TEXT = [dict(zip(NAMES, row, strict=True)) for row in CHANCE.uniform(0.2, 0.8, (WINDOWS, len(NAMES))).tolist()]
COHERENT = CHANCE.normal(0, 1, (WINDOWS, len(coherence.FEATURES))).astype(np.float32)


def fitted(*, coherent: bool) -> Gate:
    features = [
        gate_features(PROFILE[place], TEXT[place], COHERENT[place] if coherent else ()) for place in range(WINDOWS)
    ]
    found = fit_gate(
        LAYERS,
        Windows(np.stack(features), ["Books", "Code"] * (WINDOWS // 2), [f"d{place}" for place in range(WINDOWS)]),
        coherent=coherent,
    )
    assert found is not None
    return found


def shard_of(store: Store, stage: str, columns: dict[str, list]) -> Shard:
    schema = SCORES if stage == "score" else pa.table(columns).schema
    return store.kept(store.write_shard(stage, stage, table_of(columns, schema)))[0]


@pytest.mark.parametrize("coherent", [True, False])
def test_distances_are_those_of_the_columns_together(tmp_path: Path, coherent: bool) -> None:
    store, made = Store(str(tmp_path)), fitted(coherent=coherent)
    windows, documents = [f"w{place}" for place in range(WINDOWS)], [f"d{place}" for place in range(WINDOWS)]
    attention = {
        "window_id": windows,
        "doc_id": documents,
        "profile_layers": [list(LAYERS)] * WINDOWS,
        "attention_profile": [profile.ravel().tolist() for profile in PROFILE],
    }
    text = {"window_id": windows[:-1], **{name: [row[name] for row in TEXT[:-1]] for name in NAMES}}
    kept = windows[1:]  # the first one's score was no number
    scores = {
        "window_id": kept,
        "doc_id": documents[1:],
        "domain": ["Books"] * len(kept),
        "window_index": [0] * len(kept),
        "n_tokens": [1024] * len(kept),
        "doc_tokens": [1024] * len(kept),
        "doc_tokens_exact": [True] * len(kept),
        "cds": [0.0] * len(kept),
        "cds_per_layer": [[0.0]] * len(kept),
        "layers": [[3]] * len(kept),
        "dependency_score": [0.0] * len(kept),
        "order_score": [None] * len(kept),
        "coherence": COHERENT[1:].tolist(),
    }
    content = orjson.dumps(made.model_dump(mode="json"))
    store.write_bytes("gate/gate.json", content)
    job = Job(
        stage="gate",
        label="one shard",
        store=str(tmp_path),
        config={},
        inputs={
            "attention": [shard_of(store, "attention", attention)],
            "text": [shard_of(store, "text", text)],
            "scores": [shard_of(store, "score", scores)],
            "gate": [Shard(key="g", path="gate/gate.json", bytes=len(content), rows=0, sha256="0" * 64)],
        },
        identity=[],
        environment={},
    )
    outcome = gate(job, store, "made")
    found = store.read_shard(outcome.shards[0])
    places = range(1, WINDOWS - 1)
    features = [gate_features(PROFILE[p], TEXT[p], COHERENT[p] if coherent else ()) for p in places]
    assert found["window_id"].to_pylist() == [windows[place] for place in places]
    np.testing.assert_allclose(found["gate_distance"].to_numpy(), gate_distances(made, np.stack(features)), rtol=1e-6)
    assert outcome.counts.dropped == {NOT_MEASURED: 2}
    assert outcome.counts.received == WINDOWS
