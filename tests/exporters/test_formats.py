"""Every format, written by `ladm run`, read back by its own reader: same ids, same tokens, in the order of `ladm sql`.

Three runs: one document a row, best first; with short documents replayed and some selected again, shuffled and split;
and shuffled, split, and packed. Readers that are not installed are skipped; CONTRIBUTING.md says how to install them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import random
import sys
import types
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import WORDS, sentence

from ladm.flows.cli import main
from ladm.flows.runs.read import read_record
from ladm.tasks.storage.store import Store

EOS = 0
PACKED = 200
SPLIT = "case when md5_number_lower('validation:' || sha256) / 2.0**64 < 0.3 then 'validation' else 'train' end"
BUDGET = {"select.budget_tokens": 16_000}
AGAIN = {
    "select.budget_tokens": 36_000,
    "select.allocation": "uniform",
    "select.max_copies": 3,
    "select.replay": "{share: 0.05, seed: 1}",
}
SHUFFLED = {"shuffle": 7, "validation": 0.3}


@dataclass(frozen=True)
class Asked:
    """What a run is asked for: its selection, and the options of every format and of those of tokens."""

    select: dict[str, Any]
    every: dict[str, Any]
    of_tokens: dict[str, Any]
    order: str
    """In SQL."""


RUNS = {
    "plain": Asked(BUDGET, {}, {}, "domain, rank"),
    "again": Asked(
        AGAIN, SHUFFLED, {}, "md5('7:' || doc_id || case when copy > 0 then ':' || copy else '' end)"
    ),
    "packed": Asked(BUDGET, SHUFFLED, {"pack": {"length": PACKED}}, "md5('7:' || doc_id)"),
}  # fmt: skip
Copy = tuple[str, int]  # doc_id, copy


@dataclass(frozen=True)
class Made:
    """A finished run and what its export must hold."""

    name: str
    store: str
    run_id: str
    documents: dict[str, list[dict[str, Any]]]
    """Split → the rows of `selected` in order, with text, source, …, and `ids`: the whole text's tokens and EOS."""
    vocabulary: int

    @property
    def packed(self) -> bool:
        return self.name == "packed"

    @property
    def folder(self) -> Path:
        return Path(self.store) / "runs" / self.run_id / "export"

    @property
    def splits(self) -> list[str]:
        return list(self.documents)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats") / "store"


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty documents of 160 to 2,600 words, one that is tokenized in pieces, and short ones, in three domains."""
    chance = random.Random(11)
    lengths = [*(chance.randint(160, 400) for _ in range(36)), 700, 1500, 2600, *(24, 36, 48) * 5]
    path = tmp_path_factory.mktemp("formats-corpus") / "all.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, words in enumerate(lengths):
            text = " ".join(sentence(chance, 12) for _ in range(words // 12)) + WORDS[number % 20]
            file.write(json.dumps({"text": text, "kind": "aaabbbc"[number % 7], "license": "CC0"}) + "\n")
    return path


def sql(store: Path | str, query: str) -> list[dict[str, Any]]:
    """What `ladm sql` answers of the latest run."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["sql", query, "--store", str(store), "--format", "json"]) == 0
    rows: list[dict[str, Any]] = json.loads(out.getvalue())
    return rows


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test on every run; those of one split on each split that there is."""
    both = ["train", "validation"]
    splits = {name: both if "validation" in asked.every else both[:1] for name, asked in RUNS.items()}
    if "split" in metafunc.fixturenames:
        pairs = [(name, split) for name, its_splits in splits.items() for split in its_splits]
        metafunc.parametrize(("made", "split"), pairs, indirect=["made"], scope="module")
    elif "made" in metafunc.fixturenames:
        metafunc.parametrize("made", RUNS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest, store: Path, corpus_file: Path, tiny_model: Path) -> Made:
    from tokenizers import Tokenizer

    asked = RUNS[request.param]
    every = {"part_bytes": 20_000, **asked.every}
    of_tokens = {**every, **asked.of_tokens, "eos": EOS}
    export = [
        *({"format": name, **every} for name in ("parquet", "jsonl.zst", "datasets")),
        *({"format": name, **of_tokens} for name in ("mds", "megatron", "npy")),
    ]
    settings = {
        "sources": json.dumps([{"uri": str(corpus_file), "domain": "kind"}]),
        "window.length": 256,
        "scorer.model": tiny_model,
        "scorer.span": 16,
        "scorer.d_afs": 2,
        "scorer.d_cds": 2,
        **asked.select,
        "export": json.dumps(export),
    }
    arguments = [argument for name, value in settings.items() for argument in ("--set", f"{name}={value}")]
    assert main(["run", "--json", "--store", str(store), *arguments]) == 0
    run_id = (store / "latest").read_text()
    split = SPLIT if asked.every else "'train'"
    query = f"select *, {split} as split from selected join documents using (doc_id, domain) order by {asked.order}"
    rows = sql(store, query)
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    documents: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        documents[row["split"]].append({**row, "ids": [*tokenizer.encode(row["text"]).ids, EOS]})
    assert len(rows) > 15
    assert sorted(documents) == (["train", "validation"] if asked.every else ["train"])
    if asked.select is AGAIN:
        assert {row["copy"] for row in rows} >= {0, 1}
        assert {row["role"] for row in rows} == {"long", "replay"}
        assert len(rows) == sum(row["copies"] for row in rows if row["copy"] == 0)
    return Made(request.param, str(store), run_id, dict(sorted(documents.items())), tokenizer.get_vocab_size())


def sidecar(made: Made, form: str, split: str) -> list[list[dict[str, Any]]]:
    """The rows of `….pieces.parquet`, file by file."""
    files = sorted((made.folder / form).glob(f"{split}-*.pieces.parquet"))
    return [pq.read_table(file).to_pylist() for file in files]


def check_texts(made: Made, split: str, rows: list[dict[str, Any]]) -> None:
    """Rows of a format of text: ids, texts and lineage, in order."""
    expected = made.documents[split]
    names = ("doc_id", "copy", "role", "domain", "rank", "score", "text", "source", "line", "offset", "sha256")
    assert [tuple(row[name] for name in names) for row in rows] == [
        tuple(document[name] for name in names) for document in expected
    ]
    check_lineage(made, rows)


def check_lineage(made: Made, rows: list[dict[str, Any]]) -> None:
    record = read_record(Store(made.store), made.run_id)
    exports = {job["key"] for job in record["shards"] if job["stage"] == "export"}
    assert len({row["export_key"] for row in rows}) == 1
    assert {row["export_key"] for row in rows} <= exports
    for row in rows:
        line = Path(row["source"]).read_bytes()[row["offset"] :].split(b"\n", 1)[0]
        assert hashlib.sha256(orjson.loads(line)["text"].encode()).hexdigest() == row["sha256"]
        assert line == Path(row["source"]).read_bytes().split(b"\n")[row["line"] - 1]


def check_tokens(made: Made, form: str, split: str, rows: list[list[int]]) -> None:
    """Rows of tokens, and what the sidecar says of them: every token of every copy, once and in order."""
    expected = {(document["doc_id"], document["copy"]): document for document in made.documents[split]}
    assert len(expected) == len(made.documents[split])
    runs: list[dict[str, Any]] = []
    first = 0
    for pieces in sidecar(made, form, split):
        for piece in pieces:
            runs.append({**piece, "row": first + piece["row"]})
        first = runs[-1]["row"] + 1
    assert first == len(rows)
    found: dict[Copy, list[int]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run["doc_id"], run["copy"], run["doc_start"])):
        copy = run["doc_id"], run["copy"]
        ids = rows[run["row"]][run["row_start"] : run["row_start"] + run["tokens"]]
        assert len(found[copy]) == run["doc_start"]
        found[copy] += ids
        assert (run["sha256"], run["role"]) == (expected[copy]["sha256"], expected[copy]["role"])
    assert found == {copy: document["ids"] for copy, document in expected.items()}
    check_lineage(made, runs)
    in_order = sorted(runs, key=lambda run: (run["row"], run["row_start"]))
    if not made.packed:
        assert rows == [document["ids"] for document in made.documents[split]]
        assert [(run["doc_id"], run["copy"]) for run in in_order] == list(expected)
        return
    assert {len(row) for row in rows} == {PACKED}
    filled = [0] * len(rows)
    for run in in_order:
        assert run["row_start"] == filled[run["row"]]
        filled[run["row"]] += run["tokens"]
    assert all(set(row[used:]) <= {EOS} for row, used in zip(rows, filled, strict=True))
    # rows are in the order of their first documents, part by part
    place = {copy: number for number, copy in enumerate(expected)}
    for pieces in sidecar(made, form, split):
        firsts = [(place[p["doc_id"], p["copy"]], p["doc_start"]) for p in pieces if p["row_start"] == 0]
        assert firsts == sorted(firsts)


def test_windows_are_what_a_document_begins_with(made: Made) -> None:
    selected = [document for split in made.splits for document in made.documents[split]]
    documents = {document["doc_id"]: document["ids"] for document in selected if document["role"] == "long"}
    windows = sql(made.store, "select doc_id, input_ids from windows semi join selected using (doc_id)")
    assert {row["doc_id"] for row in windows} == documents.keys()
    for row in windows:
        assert documents[row["doc_id"]][: len(row["input_ids"])] == row["input_ids"]


def test_more_than_one_part(made: Made) -> None:
    for form, suffix in {"parquet": "parquet", "npy": "npy", "mds": "mds"}.items():
        assert len(list((made.folder / form).rglob(f"*.{suffix}"))) > 2


def test_parquet_by_datasets(made: Made, split: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `readers` is not installed")
    loaded = datasets.load_dataset(str(made.folder / "parquet"), cache_dir=str(tmp_path))
    assert sorted(loaded) == made.splits
    check_texts(made, split, list(loaded[split]))


def test_jsonl_by_zstandard_and_orjson(made: Made, split: str) -> None:
    rows = []
    for file in sorted((made.folder / "jsonl.zst").glob(f"{split}-*.jsonl.zst")):
        text = zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read()
        rows += [orjson.loads(line) for line in text.splitlines()]
    assert {row["meta"]["original"]["license"] for row in rows} == {"CC0"}
    check_texts(made, split, [{**r["meta"], "text": r["text"], "domain": r["meta"]["pile_set_name"]} for r in rows])


def test_jsonl_by_datasets(made: Made, split: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `readers` is not installed")
    loaded = datasets.load_dataset(str(made.folder / "jsonl.zst"), cache_dir=str(tmp_path))
    assert [row["text"] for row in loaded[split]] == [document["text"] for document in made.documents[split]]


def test_datasets_folder_by_datasets(made: Made, split: str) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `readers` is not installed")
    loaded = datasets.load_from_disk(str(made.folder / "datasets"))
    assert sorted(loaded) == made.splits
    assert str(loaded[split].split) == split
    check_texts(made, split, list(loaded[split]))
    assert loaded["train"]._fingerprint != loaded[made.splits[-1]]._fingerprint or len(made.splits) == 1


@pytest.fixture
def streaming() -> Iterator[Any]:
    """`streaming.base` alone: the package's own `__init__` also imports image datasets, which need torchvision."""
    if "streaming" not in sys.modules:
        if (spec := importlib.util.find_spec("streaming")) is None:
            pytest.skip("mosaicml-streaming is not installed; see CONTRIBUTING.md")
        package = types.ModuleType("streaming")
        package.__path__ = list(spec.submodule_search_locations or [])
        sys.modules["streaming"] = package
    import streaming.base

    yield streaming.base
    streaming.base.util.clean_stale_shared_memory()


def test_mds_by_streaming(made: Made, split: str, streaming: Any) -> None:
    dataset = streaming.StreamingDataset(local=str(made.folder / "mds"), split=split, shuffle=False, batch_size=1)
    samples = [dataset[number] for number in range(len(dataset))]
    check_tokens(made, "mds", split, [sample["tokens"].tolist() for sample in samples])
    runs = [run for pieces in sidecar(made, "mds", split) for run in pieces]
    from_samples = [
        triple
        for s in samples
        for triple in zip(s["doc_ids"], s["starts"].tolist(), s["lengths"].tolist(), strict=True)
    ]
    assert from_samples == [(run["doc_id"], run["doc_start"], run["tokens"]) for run in runs]


def test_megatron_by_indexed_dataset(made: Made, split: str) -> None:
    pytest.importorskip("megatron.core", reason="megatron-core is not installed; see CONTRIBUTING.md")
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    rows, sequences = [], []
    for file in sorted((made.folder / "megatron").glob(f"{split}-*.bin")):
        dataset = IndexedDataset(str(file.with_suffix("")))
        sequences += [dataset[number].tolist() for number in range(len(dataset))]
        for begin, end in zip(dataset.document_indices, dataset.document_indices[1:], strict=False):
            rows.append([token for number in range(begin, end) for token in dataset[number].tolist()])
    check_tokens(made, "megatron", split, rows)
    # packed rows keep the documents' boundaries: each run of tokens is a sequence
    runs = [run["tokens"] for pieces in sidecar(made, "megatron", split) for run in pieces]
    lengths = [len(sequence) for sequence in sequences if not made.packed or set(sequence) != {EOS}]
    assert lengths == [length for length in runs if length > 1 or not made.packed]


def rows_of_npy(made: Made, split: str) -> list[list[int]]:
    """The rows by NumPy alone: where they are cut is in the sidecar, or every `PACKED` tokens."""
    about = json.loads((made.folder / "npy" / "tokens.json").read_text())
    assert (about["eos_token_id"], about["dtype"], about["vocab_size"]) == (EOS, "uint16", made.vocabulary)
    rows = []
    for file, runs in zip(
        sorted((made.folder / "npy").glob(f"{split}-*.npy")), sidecar(made, "npy", split), strict=True
    ):
        flat = np.memmap(file, dtype=about["dtype"], mode="r")
        lengths = [run["tokens"] for run in runs] if not made.packed else [PACKED] * (len(flat) // PACKED)
        assert sum(lengths) == len(flat)
        rows += [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]
    return rows


def test_npy_by_numpy(made: Made, split: str) -> None:
    check_tokens(made, "npy", split, rows_of_npy(made, split))


def test_npy_by_olmo_core(made: Made, split: str) -> None:
    pytest.importorskip("olmo_core", reason="ai2-olmo-core is not installed; see CONTRIBUTING.md")
    from olmo_core.data.numpy_dataset import NumpyFSLDataset
    from olmo_core.data.utils import iter_document_indices

    files = sorted((made.folder / "npy").glob(f"{split}-*.npy"))
    rows = rows_of_npy(made, split)
    for file, runs in zip(files, sidecar(made, "npy", split), strict=True):
        if not made.packed:  # the boundaries that OLMo-core finds, both by EOS and in the file beside
            by_eos = list(iter_document_indices(str(file), eos_token_id=EOS, dtype=np.uint16))
            assert [end - start for start, end in by_eos] == [run["tokens"] for run in runs]
        beside = list(iter_document_indices(str(file), use_array_if_local=False, dtype=np.uint16))
        begins = [run["row"] * PACKED + run["row_start"] for run in runs]
        if not made.packed:
            begins = np.cumsum([0, *(run["tokens"] for run in runs[:-1])]).tolist()
        assert beside == [(begin, begin + run["tokens"]) for begin, run in zip(begins, runs, strict=True)]
    if made.packed:
        dataset = NumpyFSLDataset(
            *map(str, files),
            sequence_length=PACKED,
            pad_token_id=EOS,
            eos_token_id=EOS,
            vocab_size=400,
            dtype=np.uint16,
        )
        assert [dataset[number]["input_ids"].tolist() for number in range(len(dataset))] == rows
