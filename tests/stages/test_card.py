"""The dataset card: its figures against plain loops, and that the Hugging Face hub's loader takes it as it is."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import Answer, Corpus, run_arguments, write_jsonl
from test_export import inputs_of, made_up

from ladm.flows.config import RunConfig, load_config
from ladm.tasks.exporters.card_text import RUN_ID
from ladm.tasks.exporters.shown_paths import without_local_paths
from ladm.tasks.job import Job
from ladm.tasks.schema import ALLOCATION, DROPPED
from ladm.tasks.stages.card import card
from ladm.tasks.storage.store import Store, table_of

Cli = Callable[..., Answer]


def changed(table: pa.Table, **columns: list[Any]) -> pa.Table:
    """The table with other values in some columns."""
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return table


def card_of(store: Store, config: RunConfig, documents: int = 200, dropped: bool = False) -> tuple[str, pa.Table]:
    """A card, and the ranking it is about: lengths, scores, copies and roles are spread by the documents' ids."""
    ranking, *shards = inputs_of(store, made_up(documents))
    table = store.read_shard(ranking)
    spread = [int(doc_id[:8], 16) for doc_id in table["doc_id"].to_pylist()]
    selected = table["selected"].to_pylist()
    replayed = [chosen and number % 7 == 0 for number, chosen in zip(spread, selected, strict=True)]
    table = changed(
        table,
        doc_tokens=[1 << number % 12 for number in spread],
        score=[None if short else number % 1000 / 10 for number, short in zip(spread, replayed, strict=True)],
        copies=[
            0 if not chosen else 1 if short else 1 + number % 3
            for number, chosen, short in zip(spread, selected, replayed, strict=True)
        ],
        role=["replay" if short else "long" for short in replayed],
    )
    inputs = {
        "ranking": [store.write_shard("rank", "spread", table)],
        "allocation": [store.write_shard("rank", "allocation", ALLOCATION.empty_table())],
        "documents": list(shards),
    }
    if dropped:
        reasons = ["near duplicate", "benchmark passage", "near duplicate", "exact duplicate"]
        rows: dict[str, list[Any]] = {name: [1] * 4 for name in DROPPED.names}
        rows |= {name: ["x"] * 4 for name in ("doc_id", "domain", "source", "twin_id", "twin_source")}
        rows |= {"reason": reasons, "windows": [2, 1, 3, 0]}
        inputs["dropped"] = [store.write_shard("dedup", "dropped", table_of(rows, DROPPED))]
    about = {
        "run": config.model_dump(mode="json"),
        "config_sha256": "c0ffee",
        "model": {"reference": "m", "digest": "d"},
        "versions": {"ladm": "0"},
    }
    job = Job(stage="card", label="card", store=store.uri, config=about, inputs=inputs)
    (file,) = card(job, store, "cardkey").files
    return store.read_bytes(file.path).decode(), table


def section(text: str, title: str) -> list[list[str]]:
    """The rows of the table below a heading."""
    (body,) = re.findall(rf"^## {title}.*?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def numbers(row: list[str]) -> list[int]:
    """The cells of a row that hold a whole number."""
    return [int(cell.replace(",", "")) for cell in row if re.fullmatch(r"[\d,]+", cell)]


def counted(rows: Iterable[dict[str, Any]]) -> list[int]:
    """Selected documents, their copies, and the tokens of these."""
    chosen = [row for row in rows if row["selected"]]
    copies = sum(row["copies"] for row in chosen)
    return [len(chosen), copies, sum(row["copies"] * row["doc_tokens"] for row in chosen)]


def test_figures_by_domain_length_source_licence_and_score(tmp_path: Path) -> None:
    text, table = card_of(Store(str(tmp_path)), load_config(overrides=["select.replay.share=0.1"]))
    rows = table.to_pylist()
    ranked = [row for row in rows if row["role"] == "long"]
    assert len({row["copies"] for row in ranked}) == 4

    for domain, *cells in section(text, "Domains"):
        own = [row for row in ranked if row["domain"] == domain]
        assert numbers(cells) == [len(own), sum(row["doc_tokens"] for row in own), *counted(own)]

    buckets: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        buckets[row["role"], row["domain"], row["doc_tokens"].bit_length() - 1].append(row)
    found = {}
    for domain, length, *cells in section(text, "Lengths"):
        first, last = numbers(length.removesuffix(", replayed").split(" to "))
        assert last == 2 * first - 1
        role = "replay" if length.endswith(", replayed") else "long"
        found[role, domain, first.bit_length() - 1] = numbers(cells)
    assert found == {
        key: [len(own), sum(row["doc_tokens"] for row in own), *counted(own)] for key, own in buckets.items()
    }

    for domain, *cells in section(text, "Scores"):
        scores = sorted(row["score"] for row in ranked if row["domain"] == domain)
        threshold = min(row["score"] for row in ranked if row["domain"] == domain and row["selected"])
        expected = [scores[0], median(scores), scores[-1], threshold]
        assert [float(cells[place]) for place in (0, 3, 6, 7)] == pytest.approx(expected, rel=1e-3)

    origin = {document["doc_id"]: document["source"] for document in made_up(200)}
    for source, *cells in section(text, "Sources"):
        assert numbers(cells) == counted(row for row in rows if origin[row["doc_id"]] == source)
    assert section(text, "Licences") == [["not stated", *(f"{number:,}" for number in counted(rows))]]

    documents, copies, tokens = counted(ranked)
    assert f"\n{documents:,} of {len(ranked):,} documents ({tokens:,} of " in text
    assert f"add {copies - documents:,} rows: {copies:,} rows in all" in text
    documents, _, tokens = counted(row for row in rows if row["role"] == "replay")
    assert f"Beside them {documents:,} short documents ({tokens:,} tokens)" in text


def test_what_was_left_out_before_scoring(tmp_path: Path) -> None:
    asked = ["deduplicate=true", "decontaminate.against=[a.jsonl, b.txt]"]
    text, _ = card_of(Store(str(tmp_path / "a")), load_config(overrides=asked), dropped=True)
    assert section(text, "Left out") == [
        ["benchmark passage", "x", "1", "1"],
        ["exact duplicate", "x", "1", "0"],
        ["near duplicate", "x", "2", "5"],
    ]
    assert "near duplicates (similarity from 0.55 on); passages of a.jsonl, b.txt (13 words in common)" in text
    assert "4 documents were dropped, so that 6 windows were not scored" in text
    text, _ = card_of(Store(str(tmp_path / "b")), load_config(overrides=["deduplicate.near=false"]))
    assert "Looked for: exact duplicates. None was found." in text
    text, _ = card_of(Store(str(tmp_path / "c")), load_config())
    assert "Neither duplicates nor benchmark passages were looked for." in text


def test_the_card_of_a_run_says_all_that_it_takes_to_make_it_again(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    write_jsonl(corpus.folder / "notes.jsonl", "Poems", 5, [20, 30, 25, 15])
    poems = corpus.folder / "poems.jsonl"
    first = json.loads(poems.read_text().splitlines()[0])
    poems.write_text(poems.read_text() + json.dumps({**first, "text": first["text"].upper()}) + "\n")
    store = tmp_path / "store"
    settings = [
        "select={budget_tokens: 5000, allocation: uniform, max_copies: 2, replay: {share: 0.1}}",
        "deduplicate={near: false}",
        "export=[parquet]",
    ]
    answer = ladm(*run_arguments(corpus, store, *settings))
    assert answer.code == 0, answer.err
    record = answer.record
    folder = store / "runs" / record["run_id"]
    text = (folder / "export" / "README.md").read_text()

    for told in (
        record["run_id"],
        record["config_sha256"],
        record["model"]["digest"],
        *(f"{package} {version}" for package, version in record["versions"].items()),
    ):
        assert told in text
    rows = pq.read_table(folder / "export" / "parquet").to_pylist()
    assert len(rows) > len({row["doc_id"] for row in rows})
    assert sum(numbers(cells)[1] for cells in section(text, "Sources")) == len(rows)
    assert sum(numbers(cells)[1] for cells in section(text, "Licences")) == len(rows)
    assert sum(numbers(cells[2:])[3] for cells in section(text, "Lengths")) == len(rows)
    tokens = sum(row["doc_tokens"] for row in rows)
    for title in ("Sources", "Licences", "Lengths"):
        assert sum(numbers(cells)[-1] for cells in section(text, title)) == tokens
    licences = {(json.loads(row["meta"])["meta"].get("license") or "not stated") for row in rows}
    assert {cells[0] for cells in section(text, "Licences")} == licences
    assert [cells[0] for cells in section(text, "Left out")] == ["exact duplicate"]

    # the configuration in the card makes the same again, elsewhere
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    assert str(tmp_path) not in text
    told = yaml.safe_load(block)
    assert told == without_local_paths(record["config"])
    places = {name: record["config"][name] for name in ("sources", "store")}
    told |= {**places, "scorer": {**told["scorer"], "model": record["config"]["scorer"]["model"]}}
    assert told == record["config"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(told))
    again = ladm("run", tmp_path / "config.yaml", "--json", "--store", tmp_path / "other").record
    assert again["config"] | {"store": record["store"]} == record["config"]
    other = tmp_path / "other" / "runs" / again["run_id"]
    for name in ("ranking.parquet", "allocation.parquet", "dropped.parquet"):
        assert pq.read_table(other / name) == pq.read_table(folder / name)
    assert pq.read_table(other / "export" / "parquet").to_pylist() == rows


def test_the_hub_loader_opens_the_folder_of_the_card(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `readers` is not installed")
    text, _ = card_of(
        Store(str(tmp_path / "store")),
        load_config(overrides=["export=[{format: parquet, validation: 0.3}, jsonl.zst]"]),
    )
    assert f"Run `{RUN_ID}`, configuration sha256 `c0ffee`" in text
    for split, count in {"train": 5, "validation": 2}.items():
        file = tmp_path / "export" / "parquet" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"doc_id": [f"{split}-{number}" for number in range(count)]}), file)
    (tmp_path / "export" / "jsonl.zst").mkdir()
    (tmp_path / "export" / "jsonl.zst" / "train-00000-of-00001.jsonl.zst").write_bytes(b"not looked at")
    (tmp_path / "export" / "README.md").write_text(text, encoding="utf-8")
    loaded = datasets.load_dataset(str(tmp_path / "export"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in loaded.items()} == {"train": 5, "validation": 2}

    without, _ = card_of(Store(str(tmp_path / "other")), load_config(overrides=["export=mds"]))
    assert yaml.safe_load(without.split("---\n")[1])["license"] == "unknown"
