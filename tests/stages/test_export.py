"""What an export decides before any format: order, splits, parts, what a rerun does, and how much memory it takes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ladm.tasks.exporters.parquet import ParquetExporter
from ladm.tasks.job import Job, Outcome
from ladm.tasks.manifest import Shard
from ladm.tasks.schema import DOCUMENTS, RANKING
from ladm.tasks.stages.export import STAGE, export
from ladm.tasks.storage.store import Store, table_of


def made_up(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Documents of very different length in three domains, some with the same text."""
    chance = random.Random(seed)
    documents: list[dict[str, Any]] = []
    for number in range(count):
        text = f"{number // 2 if number % 10 < 2 else number} " + "word " * chance.randint(1, 400)
        documents.append(
            {
                "doc_id": f"{chance.getrandbits(64):016x}",
                "domain": chance.choice("xyz"),
                "text": text,
                "source": f"/data/{number % 3}.jsonl",
                "line": number + 1,
                "offset": number,
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
                "bytes": len(text),
                "meta": None,
            }
        )
    return documents


def inputs_of(store: Store, documents: list[dict[str, Any]], shards: int = 3) -> list[Shard]:
    """A ranking in which every fifth document is not selected, and the documents in some shards."""
    rows = []
    for domain in sorted({document["domain"] for document in documents}):
        own = sorted((d for d in documents if d["domain"] == domain), key=lambda d: d["doc_id"][::-1])
        for rank, document in enumerate(own, 1):
            rows.append({"doc_id": document["doc_id"], "domain": domain, "rank": rank, "selected": rank % 5 != 0})
    table = {name: [row.get(name, 1) for row in rows] for name in RANKING.names}
    table |= {"doc_tokens_exact": [True] * len(rows), "role": ["long"] * len(rows)}
    table["copies"] = [int(row["selected"]) for row in rows]
    made = [store.write_shard("rank", "rankingkey", table_of(table, RANKING))]
    for number in range(shards):
        own = documents[number::shards]
        columns = {name: [document[name] for document in own] for name in DOCUMENTS.names}
        made.append(store.write_shard("length", f"{number}key", table_of(columns, DOCUMENTS)))
    return made


def job_of(store: Store, inputs: Sequence[Shard], **options: Any) -> Job:
    config = {"format": "parquet", **options}
    ranking, *documents = inputs
    played = {"ranking": [ranking], "documents": documents}
    return Job(stage="export", label="x", store=store.uri, config=config, inputs=played)


def exported(store: Store, job: Job) -> tuple[Outcome, dict[str, list[dict[str, Any]]]]:
    """The outcome, and the rows by split in the order of the files' names."""
    outcome = export(job, store, STAGE.key(job))
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    for file in outcome.files:
        split = file.path.rsplit("/", 1)[1].split("-")[0]
        rows[split] += pq.read_table(store.full(file.path)).to_pylist()
    return outcome, rows


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_best_first_in_parts_of_bounded_size(store: Store) -> None:
    documents = made_up(400)
    inputs = inputs_of(store, documents)
    job = job_of(store, inputs, part_bytes=20_000)
    outcome, rows = exported(store, job)
    ranking = store.read_shard(inputs[0]).to_pylist()
    selected = [row["doc_id"] for row in ranking if row["selected"]]
    assert [row["doc_id"] for row in rows["train"]] == selected
    assert (outcome.counts.kept, outcome.counts.dropped) == (len(selected), {"not selected": 400 - len(selected)})
    texts = {document["doc_id"]: document for document in documents}
    for row in rows["train"]:
        origin = texts[row["doc_id"]]
        assert {name: row[name] for name in origin} == origin
        assert row["export_key"] == STAGE.key(job)
    sizes = [sum(r["bytes"] for r in pq.read_table(store.full(f.path)).to_pylist()) for f in outcome.files]
    longest = max(document["bytes"] for document in documents)
    assert len(sizes) > 5
    assert all(20_000 - longest < size < 20_000 + longest for size in sizes[:-1])
    assert outcome.files[0].path.endswith(f"/train-00000-of-{len(sizes):05d}.parquet")


def test_shuffle_is_a_permutation_by_seed(store: Store) -> None:
    inputs = inputs_of(store, made_up(400))
    by_seed = {
        seed: [row["doc_id"] for row in exported(store, job_of(store, inputs, shuffle=seed))[1]["train"]]
        for seed in (None, 1, 2)
    }
    assert by_seed[1] != by_seed[2]
    assert sorted(by_seed[1]) == sorted(by_seed[2]) == sorted(by_seed[None])
    again = job_of(Store(store.uri), inputs, shuffle=1, part_bytes=9_000)
    assert [row["doc_id"] for row in exported(store, again)[1]["train"]] == by_seed[1]
    # not merely shuffled within the domains
    domain_of = {row["doc_id"]: row["domain"] for row in store.read_shard(inputs[0]).to_pylist()}
    changes = sum(domain_of[a] != domain_of[b] for a, b in zip(by_seed[1], by_seed[1][1:], strict=False))
    assert changes > 100


def test_a_document_stays_in_its_split(store: Store, tmp_path: Path) -> None:
    documents = made_up(1500)

    def held_out(count: int, share: float, **more: Any) -> tuple[set[str], set[str]]:
        own = Store(str(tmp_path / f"{count}-{share}-{len(more)}"))
        _, rows = exported(own, job_of(own, inputs_of(own, documents[:count]), validation=share, **more))
        train, validation = ({row["sha256"] for row in rows[split]} for split in ("train", "validation"))
        assert not train & validation, "two copies of one text are never on both sides"
        return train, validation

    train, validation = held_out(1500, 0.2)
    assert 0.15 < len(validation) / len(train | validation) < 0.25
    fewer_train, fewer_validation = held_out(900, 0.2)
    assert fewer_validation
    assert not fewer_validation & train
    assert not fewer_train & validation
    assert held_out(1500, 0.2, shuffle=5)[1] == validation
    assert held_out(1500, 0.1)[1] < validation < held_out(1500, 0.4)[1]


def test_a_rerun_writes_only_the_parts_that_are_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(store, inputs_of(store, made_up(400)), part_bytes=20_000, validation=0.3, shuffle=3)
    written: list[str] = []
    working = ParquetExporter.write

    def counting(self: Any, part: Any, tables: Any) -> None:
        if len(written) == 4 and not any(name == "broken" for name in written):
            written.append("broken")
            next(tables)
            raise OSError("the disk is full")
        working(self, part, tables)
        written.append(part.stem)

    monkeypatch.setattr(ParquetExporter, "write", counting)
    with pytest.raises(OSError, match="disk is full"):
        export(job, store, STAGE.key(job))
    before = set(written)
    written.clear()
    written.append("broken")
    outcome, rows = exported(store, job)
    assert len(before) == 5
    assert not (before - {"broken"}) & set(written)
    assert len(written) - 1 + 4 == len(outcome.files)
    fresh = Store(store.uri + "-fresh")
    _, expected = exported(fresh, job_of(fresh, inputs_of(fresh, made_up(400)), **job.config))
    assert rows == expected
    (lost, *_) = outcome.files
    Path(store.full(lost.path)).unlink()
    written[:] = ["broken"]
    assert exported(store, job)[1] == expected
    assert len(written) == 2


def test_an_empty_selection_is_no_file(store: Store) -> None:
    ranking, *documents = inputs_of(store, made_up(4))
    table = store.read_shard(ranking)
    none = table.set_column(table.schema.get_field_index("selected"), RANKING.field("selected"), [[False] * 4])
    outcome, _ = exported(store, job_of(store, [store.write_shard("rank", "none", none), *documents]))
    assert outcome.files == []
    outcome.counts.check("export")
