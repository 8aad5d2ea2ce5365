"""Short documents beside the long ones: how many, which, in what proportions, and that they reach the export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, by_role, run_arguments, write_jsonl
from test_dedup import jsonl, made_up_words
from test_select import Document, fitting, ids, made_up, shards_of, tokens

from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard, SourceFile
from ladm.tasks.schema import DROP_LIST, SHORT
from ladm.tasks.selection import SelectConfig
from ladm.tasks.stages import short as short_stage
from ladm.tasks.stages.dedup import dedup
from ladm.tasks.stages.ingest import ingest
from ladm.tasks.stages.length import length
from ladm.tasks.stages.rank import rank
from ladm.tasks.stages.signatures import signatures
from ladm.tasks.storage.store import Store, table_of

Cli = Callable[..., Answer]


def replayed(
    folder: Path, documents: list[Document], short: list[Document], dropped: list[str], **select: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the ranking, and of the allocation."""
    store = Store(str(folder))
    inputs = shards_of(store, documents)[:1]
    rows = {name: [document[name] for document in short] for name in SHORT.names}
    inputs.append(store.write_shard("short", "shortkey", table_of(rows, SHORT)))
    inputs.append(store.write_shard("dedup", "dropkey", table_of({"doc_id": dropped}, DROP_LIST)))
    config = SelectConfig(**select)
    played = by_role(inputs, scores="score", short="short", drops="dedup")
    job = Job(stage="rank", label="x", store=store.uri, config=config.model_dump(), inputs=played)
    outcome = rank(job, store, "k")
    outcome.counts.check("rank")
    assert outcome.measures["documents"] == len(documents)
    ranking = store.read_shard(outcome.shards[0]).to_pylist()
    spent = sum(row["doc_tokens"] * row["copies"] for row in ranking)
    assert outcome.measures["selected_tokens"] == spent <= config.budget_tokens
    allocation = store.read_shard(outcome.files[0]).to_pylist()
    assert sum(row["selected_tokens"] for row in allocation) == spent
    return ranking, allocation


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("allocation", ["proportional", "uniform"])
def test_replay_is_a_seeded_sample_in_the_proportions_of_the_selection(
    tmp_path: Path, allocation: str, seed: int
) -> None:
    documents = made_up(1)
    short = [{**document, "doc_id": f"s{document['doc_id']}"} for document in made_up(2, 400, longest=40)]
    short = [document for document in short if document["domain"] != "z" or document["doc_id"].endswith("1")]
    dropped = [document["doc_id"] for document in short[:50]]
    budget = tokens(documents) // 4
    ranking, targets = replayed(
        tmp_path / "a", documents, short, dropped,
        budget_tokens=budget, allocation=allocation, replay={"share": 0.1, "seed": seed},
    )  # fmt: skip
    long_rows = [row for row in ranking if row["role"] == "long"]
    without, _ = replayed(
        tmp_path / "b", documents, short, dropped, budget_tokens=budget - budget // 10, allocation=allocation
    )  # fmt: skip
    assert long_rows == without

    selected: dict[str, int] = {}
    for row in long_rows:
        selected[row["domain"]] = selected.get(row["domain"], 0) + row["doc_tokens"] * row["selected"]
    expected: set[str] = set()
    for domain, of_domain in selected.items():
        target = budget // 10 * of_domain // sum(selected.values())
        pool = [document for document in short if document["domain"] == domain and document["doc_id"] not in dropped]
        pool.sort(key=lambda document: hashlib.md5(f"{seed} {document['doc_id']}".encode()).hexdigest())
        taken = fitting(pool, target)
        expected |= ids(taken)
        (row,) = (row for row in targets if (row["role"], row["domain"]) == ("replay", domain))
        assert (row["target_tokens"], row["selected_tokens"], row["documents"]) == (target, tokens(taken), len(taken))
        assert (row["short_tokens"], row["exhausted"]) == (target - tokens(taken), len(taken) == len(pool))
    of_replay = [row for row in ranking if row["role"] == "replay"]
    assert {row["doc_id"] for row in of_replay} == expected
    assert len(expected) > 20
    assert not expected & set(dropped)
    ranks = [(row["domain"], row["rank"]) for row in ranking]
    assert ranks == sorted(set(ranks))
    assert all(row["selected"] and row["score"] is None and row["rank"] > row["domain_documents"] for row in of_replay)


def test_another_seed_takes_others(tmp_path: Path) -> None:
    documents, short = made_up(1), [{**one, "doc_id": f"s{one['doc_id']}"} for one in made_up(2, 400, longest=40)]
    samples = [
        {row["doc_id"] for row in ranking if row["role"] == "replay"}
        for seed in (0, 1)
        for ranking, _ in [
            replayed(
                tmp_path / str(seed), documents, short, [], budget_tokens=9000, replay={"share": 0.2, "seed": seed}
            )
        ]
    ]
    assert samples[0] != samples[1]
    assert samples[0] & samples[1] != samples[0]


def test_short_documents_are_counted_once_and_compared_after_the_long_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    monkeypatch.setattr(short_stage, "tokenizer_of", lambda reference, digest: tokenizer)
    long, middle, tiny = (" ".join(made_up_words(seed, words)) for seed, words in ((1, 300), (2, 60), (3, 5)))
    store = Store(str(tmp_path / "store"))
    texts = [tiny, middle, middle.title(), "", long, tiny.upper(), f"{long} more"]
    file = jsonl(tmp_path / "a.jsonl", texts)
    source = SourceFile(uri=str(file), size=file.stat().st_size, version=str(file.stat().st_mtime_ns))
    reading = {"text": "text", "domain": {"const": "x"}, "format": "auto", "shard_bytes": 10**6}
    (ingested,) = ingest(
        Job(stage="ingest", label="x", store=store.uri, source=source, config=reading), store, "ingest"
    ).shards
    asked = {"window_length": 100, "chars_per_token": None}
    job = Job(stage="length", label="x", store=store.uri, config=asked, inputs={"documents": [ingested]})
    (long_enough,) = length(job, store, "length").shards
    assert long_enough.rows == 4  # the two of 60 words have more bytes than a window has tokens
    ids = {row["line"]: row["doc_id"] for row in store.read_shard(ingested).to_pylist()}
    windows = store.write_shard("tokenize", "tokenize", pa.table({"doc_id": [ids[5], ids[7]]}))

    job = Job(
        stage="short", label="x", store=store.uri, config={"window_length": 100},
        inputs={"documents": [ingested], "windows": [windows]},
        identity=[""], environment={"model": ""},
    )  # fmt: skip
    outcome = short_stage.short(job, store, "short")
    outcome.counts.check("short")
    assert outcome.counts.dropped == {"fills a window": 2, "no token": 1}
    (short,) = outcome.shards
    counted = {row["doc_id"]: row["doc_tokens"] for row in store.read_shard(short).to_pylist()}
    assert counted == {ids[1]: 5, ids[2]: 60, ids[3]: 60, ids[6]: 5}

    near = {"words": 2, "permutations": 64, "seed": 0}
    signed: list[Shard] = []
    of_the_short = {"documents": [ingested], "short": [short], "long_enough": [long_enough]}
    for number, inputs in enumerate([{"documents": [long_enough]}, of_the_short]):
        job = Job(stage="signatures", label="x", store=store.uri, config={"near": near}, inputs=inputs)
        outcome = signatures(job, store, f"signatures{number}")
        outcome.counts.check("signatures")
        signed += outcome.shards
    assert [shard.rows for shard in signed] == [4, 2]
    job = Job(
        stage="dedup", label="x", store=store.uri, config={"exact": True, "near": {**near, "threshold": 0.5}},
        inputs={"short": [short], "windows": [windows], "signatures": signed},
    )  # fmt: skip
    outcome = dedup(job, store, "dedup")
    outcome.counts.check("dedup")
    assert (outcome.counts.received, outcome.counts.dropped) == (2, {"near duplicate": 1})
    lists = [set(store.read_shard(shard)["doc_id"].to_pylist()) for shard in outcome.shards]
    assert lists == [{ids[3], ids[6]}, {ids[7]}]


def test_through_the_whole_dag(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    write_jsonl(corpus.folder / "notes.jsonl", "Poems", 5, [20, 30, 25, 15])
    (corpus.folder / "notes.jsonl").open("a").write(json.dumps({"text": "", "meta": {"pile_set_name": "Poems"}}) + "\n")
    poem = json.loads((corpus.folder / "poems.jsonl").read_text().splitlines()[-1])["text"]
    (corpus.folder / "poems.jsonl").open("a").write(
        json.dumps({"text": f"  {poem}\n", "meta": {"pile_set_name": "Poems"}}) + "\n"
    )
    store = tmp_path / "store"
    settings = ["select.budget_tokens=4000", "select.replay={share: 0.2, seed: 3}", "deduplicate={near: false}"]
    answer = ladm(*run_arguments(corpus, store, *settings))
    assert answer.code == 0, answer.err
    record = answer.record
    stages = record["stages"]
    # of 15 documents seven fill a window and one is empty; the copy of a short poem is dropped before it is replayed
    assert (stages["short"]["in"], stages["short"]["kept"]) == (15, 7)
    assert stages["short"]["dropped"] == {"fills a window": 7, "no token": 1}
    assert stages["dedup"]["dropped_documents"] == 1
    assert stages["score"]["in"] == 7

    query = """select doc_id, role, rank, doc_tokens, text from selected join documents using (doc_id)
               order by selected.domain, rank"""
    selected = json.loads(ladm("sql", query, "--store", store, "--format", "json").out)
    roles = [row["role"] for row in selected]
    assert set(roles) == {"long", "replay"}
    assert sum(row["doc_tokens"] for row in selected if row["role"] == "replay") <= 800
    assert all(row["doc_tokens"] < 256 for row in selected if row["role"] == "replay")
    exported = pq.read_table(
        store / "runs" / record["run_id"] / "export" / "parquet" / "train-00000-of-00001.parquet"
    ).to_pylist()
    assert [(row["doc_id"], row["text"]) for row in exported] == [(row["doc_id"], row["text"]) for row in selected]
    ranked = json.loads(ladm("sql", "select count(*) as n from ranking", "--store", store, "--format", "json").out)
    assert ranked == [{"n": 7}]
    assert "fills no window" in (store / "runs" / record["run_id"] / "export" / "README.md").read_text()

    # another share: ranking and export alone; the same again: nothing
    other = ladm(*run_arguments(corpus, store, *settings, "select.replay.share=0.1")).record
    assert {stage for stage, summary in other["stages"].items() if summary["run"]} <= {"rank", "export"}
    again = ladm(*run_arguments(corpus, store, *settings)).record
    assert all(summary["run"] == 0 for summary in again["stages"].values())
