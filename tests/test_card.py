"""The dataset card: its figures against plain loops, and that the Hugging Face hub's loader takes it as it is."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_export import inputs_of, made_up

from flows.config import RunConfig, load_config
from tasks.card import RUN_ID, card
from tasks.job import Job
from tasks.schema import ALLOCATION
from tasks.store import Store


def card_of(store: Store, config: RunConfig, documents: int = 200) -> tuple[str, pa.Table]:
    """A card, and the ranking it is about; lengths and scores are spread by the documents' ids."""
    ranking, *shards = inputs_of(store, made_up(documents))
    table = store.read_shard(ranking)
    spread = [int(doc_id[:8], 16) for doc_id in table["doc_id"].to_pylist()]
    for name, values in {
        "doc_tokens": pa.array([1 << number % 12 for number in spread], pa.int64()),
        "score": pa.array([number % 1000 / 10 for number in spread], pa.float64()),
    }.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    inputs = [
        store.write_shard("rank", "spread", table),
        store.write_shard("rank", "allocation", ALLOCATION.empty_table()),
    ]
    about = {
        "run": config.model_dump(mode="json"),
        "config_sha256": "c0ffee",
        "model": {"reference": "m", "digest": "d"},
        "versions": {"ladm": "0"},
    }
    job = Job(stage="card", label="card", store=store.uri, config=about, inputs=[*inputs, *shards])
    (file,) = card(job, store, "cardkey").files
    return store.read_bytes(file.path).decode(), table


def test_figures_by_length_source_and_score(tmp_path: Path) -> None:
    text, table = card_of(Store(str(tmp_path)), load_config())
    rows = table.to_pylist()
    buckets = Counter((row["domain"], row["doc_tokens"].bit_length() - 1) for row in rows)
    taken = Counter((row["domain"], row["doc_tokens"].bit_length() - 1) for row in rows if row["selected"])
    tokens = {key: sum(r["doc_tokens"] for r in rows if (r["domain"], r["doc_tokens"].bit_length() - 1) == key)
              for key in buckets}  # fmt: skip
    lines = re.findall(r"^\| ([xyz]) \| ([\d,]+) to ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", text, re.M)
    number = lambda cell: int(cell.replace(",", ""))  # noqa: E731
    assert {(line[0], number(line[1]).bit_length() - 1): tuple(map(number, line[3:])) for line in lines} == {
        key: (buckets[key], tokens[key], taken[key]) for key in buckets
    }
    for domain in "xyz":
        scores = sorted(row["score"] for row in rows if row["domain"] == domain)
        threshold = min(row["score"] for row in rows if row["domain"] == domain and row["selected"])
        (line,) = re.findall(rf"^\| {domain} \| (\S+) \|.*\| (\S+) \| (\S+) \|$", text.split("## Scores")[1], re.M)[:1]
        assert [float(cell) for cell in line] == [scores[0], scores[-1], threshold]
    sources = re.findall(r"^\| (/data/\d\.jsonl) \| (\d+) \|", text, re.M)
    assert sum(int(count) for _, count in sources) == sum(row["selected"] for row in rows)
    assert f"Run `{RUN_ID}`, configuration sha256 `c0ffee`" in text


def test_the_hub_loader_opens_the_folder_of_the_card(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `readers` is not installed")
    text, _ = card_of(Store(str(tmp_path / "store")), load_config(overrides=["export=[parquet, jsonl.zst]"]))
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
    assert without.startswith("# ")
