"""Ranking and selection in DuckDB against plain loops, with exact numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ladm.tasks.errors import ConfigError
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.schema import SCORES
from ladm.tasks.selection import SelectConfig
from ladm.tasks.stages.rank import rank
from ladm.tasks.storage.store import Store, table_of


def score_shard(store: Store, key: str, rows: list[dict[str, Any]]) -> Shard:
    full = [
        {
            "window_id": f"{row['doc_id']}:{row.get('window_index', 0)}",
            "window_index": 0,
            "n_tokens": 8,
            "doc_tokens_exact": True,
            "cds_per_layer": [row["cds"]],
            "layers": [0],
            **row,
        }
        for row in rows
    ]
    return store.write_shard(
        "score", key, table_of({name: [row.get(name) for row in full] for name in SCORES.names}, SCORES)
    )


def ranked(store: Store, shards: list[Shard], measures: Sequence[Shard] = (), **select: Any) -> list[dict[str, Any]]:
    config = SelectConfig(**select).model_dump()
    inputs = {"scores": shards, "measures": list(measures)}
    job = Job(stage="rank", label="x", store=store.uri, config=config, inputs=inputs)
    outcome = rank(job, store, "rankkey")
    outcome.counts.check("rank")
    rows: list[dict[str, Any]] = store.read_shard(outcome.shards[0]).to_pylist()
    return rows


def test_ranks_within_domains_and_breaks_ties_by_id(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one = score_shard(store, "one", [
        {"doc_id": "b", "domain": "x", "cds": 2.0, "doc_tokens": 10},
        {"doc_id": "c", "domain": "x", "cds": 3.0, "doc_tokens": 30},
    ])  # fmt: skip
    two = score_shard(store, "two", [
        {"doc_id": "a", "domain": "x", "cds": 2.0, "doc_tokens": 60},
        {"doc_id": "d", "domain": "'; DROP TABLE ranking", "cds": -1.0, "doc_tokens": 5},
    ])  # fmt: skip
    rows = ranked(store, [one, two])
    assert [(row["domain"], row["doc_id"], row["rank"], row["top_share"], row["selected"]) for row in rows] == [
        ("'; DROP TABLE ranking", "d", 1, 1.0, True),
        ("x", "c", 1, 0.3, True),
        ("x", "a", 2, 0.9, True),
        ("x", "b", 3, 1.0, True),
    ]


@pytest.mark.parametrize(("how", "score"), [("max", 5.0), ("mean", 3.0), ("first", 1.0)])
def test_a_documents_score_comes_from_its_windows(tmp_path: Path, how: str, score: float) -> None:
    store = Store(str(tmp_path))
    windows = [
        {"doc_id": "a", "domain": "x", "cds": cds, "doc_tokens": 10, "window_index": index}
        for index, cds in ((2, 3.0), (0, 1.0), (1, 5.0))
    ]
    (row,) = ranked(store, [score_shard(store, "one", windows)], document_score=how)
    assert (row["score"], row["windows"]) == (score, 3)


@pytest.mark.parametrize("seed", range(5))
def test_proportional_selection_equals_a_plain_loop(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    documents = [
        {"doc_id": f"{number:03d}", "domain": chance.choice("xyz"), "cds": chance.choice([1.0, 2.0, chance.random()]),
         "doc_tokens": chance.randint(1, 500)}
        for number in range(200)
    ]  # fmt: skip
    budget = sum(int(document["doc_tokens"]) for document in documents) * 3 // 10
    store = Store(str(tmp_path))
    rows = ranked(
        store,
        [score_shard(store, "one", documents[:90]), score_shard(store, "two", documents[90:])],
        budget_tokens=budget,
    )

    turns = []
    for domain in "xyz":
        best = sorted((d for d in documents if d["domain"] == domain), key=lambda d: (-d["cds"], d["doc_id"]))
        total, running = sum(d["doc_tokens"] for d in best), 0
        target = budget * total / sum(int(d["doc_tokens"]) for d in documents)
        for document in best:
            past = running >= target  # the document before it has crossed the target already
            running += document["doc_tokens"]
            turns.append((past, running / total, document["doc_id"], document["doc_tokens"]))
    expected, spent = set(), 0
    for _, _, doc_id, tokens in sorted(turns):
        if spent + tokens > budget:
            break
        spent += tokens
        expected.add(doc_id)
    selected = [row for row in rows if row["selected"]]
    assert {row["doc_id"] for row in selected} == expected
    assert sum(row["doc_tokens"] for row in selected) == spent <= budget
    largest = max(int(document["doc_tokens"]) for document in documents)
    assert budget - spent < largest


def test_the_order_of_shards_does_not_matter(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    shards = [
        score_shard(store, name, [{"doc_id": name, "domain": "x", "cds": 1.0, "doc_tokens": 7}])
        for name in ("p", "q", "r")
    ]
    assert ranked(store, shards, budget_tokens=15) == ranked(store, shards[::-1], budget_tokens=15)


def test_a_budget_smaller_than_any_document_selects_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    shard = score_shard(store, "one", [{"doc_id": "a", "domain": "x", "cds": 1.0, "doc_tokens": 7}])
    assert [row["selected"] for row in ranked(store, [shard], budget_tokens=6)] == [False]


def test_ranks_by_the_score_that_is_asked_for(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    rows = [
        {"doc_id": "a", "domain": "x", "cds": 1.0, "doc_tokens": 5, "gzip": 0.1, "order_score": 9.0},
        {"doc_id": "b", "domain": "x", "cds": 2.0, "doc_tokens": 5, "gzip": 0.3, "order_score": 7.0},
        {"doc_id": "c", "domain": "x", "cds": 3.0, "doc_tokens": 5, "gzip": 0.2, "order_score": 8.0},
    ]
    shard = score_shard(store, "one", rows)
    for rank_by, order in (("ladm", "cba"), ("order", "acb")):
        assert "".join(row["doc_id"] for row in ranked(store, [shard], rank_by=rank_by)) == order
    measured = [
        store.write_shard("measure", name, pa.table({"window_id": ids, "doc_id": ids, name: values}))
        for name, ids, values in (
            ("gzip", ["a:0", "b:0", "c:0"], [0.1, 0.3, 0.2]),
            ("random", ["a:0", "c:0"], [0.5, 0.6]),  # b could not be measured
        )
    ]
    for rank_by, order in (("gzip", "bca"), ("random", "ca")):
        rows = ranked(store, [shard], measured, rank_by=rank_by)
        assert "".join(row["doc_id"] for row in rows) == order


@pytest.mark.parametrize("document_score", ["max", "mean", "first"])
@pytest.mark.parametrize("windows", [1, 2])
def test_a_document_without_the_score_is_not_ranked_by_its_id(
    tmp_path: Path, document_score: str, windows: int
) -> None:
    store = Store(str(tmp_path))
    scored = {"domain": "x", "cds": 1.0, "doc_tokens": 5, "order_score": 1.0}
    rows = [{"doc_id": name, "window_index": number, **scored} for name in "abc" for number in range(windows)]
    rows[-1]["order_score"] = None  # of one window of one document
    shard = score_shard(store, "one", rows)
    message = "^select.rank_by: 1 of 3 documents have no score 'order', the first c; rank by"
    with pytest.raises(ConfigError, match=message):
        ranked(store, [shard], rank_by="order", document_score=document_score)
    assert len(ranked(store, [shard], document_score=document_score)) == 3
