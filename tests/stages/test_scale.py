"""A million documents: comparing, ranking, the card and every export keep within 2 GB, each in a process of its own.

`pytest -m slow tests/stages/test_scale.py -rP` prints the figures.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from conftest import WORDS, by_role

from ladm.flows.config import load_config
from ladm.tasks.exporters.formats import EXPORTERS
from ladm.tasks.exporters.tokens import TokenExport
from ladm.tasks.job import Job
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.schema import DOCUMENTS, SCORES, SIGNATURES, WINDOWS
from ladm.tasks.selection import SelectConfig
from ladm.tasks.shingles import minhashes, shingles
from ladm.tasks.stages.dedup import DeduplicateConfig, NearConfig
from ladm.tasks.storage.store import Store

ROWS = 1_000_000
ROWS_A_SHARD = 62_500
MOST_BYTES = 2_000_000_000
MEASURING = """
import json, re, sys
from pathlib import Path
from ladm.tasks.stages import card, dedup, export, rank
from ladm.tasks.job import Job, run_job

def peak():  # getrusage would tell the larger of this process's and its parent's at the fork
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])

job = Job.from_dict(json.load(sys.stdin))
base = peak()
stages = {stage.STAGE.name: stage.STAGE for stage in (dedup, rank, card, export)}
manifest = run_job(stages[job.stage], job)
print(json.dumps({"base": base, "peak": peak(), "manifest": manifest.as_dict()}))
"""


def measured(job: Job) -> Manifest:
    """Do a job in a process of its own; its peak memory, with all that it imports, must be below the limit."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURING],
        input=job.as_json().decode(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    manifest = Manifest.from_dict(found["manifest"])
    print(
        f"{job.stage} {job.label}: peak {found['peak'] / 1e6:,.0f} MB, of which imports {found['base'] / 1e6:,.0f} MB; "
        f"{manifest.seconds:.0f} s"
    )
    assert found["peak"] < MOST_BYTES
    return manifest


def texts(count: int, seed: int) -> Iterator[str]:
    """Made-up texts of some 600 characters, each another."""
    chance = random.Random(seed)
    pool = " ".join(chance.choices(WORDS, k=400_000))
    for number in range(count):
        start = chance.randrange(len(pool) - 2000)
        yield f"{seed} {number} {pool[start : start + chance.randrange(300, 900)]}"


def shards_of(store: Store) -> tuple[list[Shard], list[Shard]]:
    """The document shards, and a score shard of each."""
    documents, scores = [], []
    chance = np.random.default_rng(1)
    for number in range(ROWS // ROWS_A_SHARD):
        column = list(texts(ROWS_A_SHARD, number))
        doc_ids = [hashlib.md5(text.encode()).hexdigest() for text in column]
        domains = pa.array([f"domain {place}" for place in chance.integers(0, 10, ROWS_A_SHARD)])
        whole = pa.array(np.arange(ROWS_A_SHARD, dtype=np.int64))
        made = {
            "doc_id": doc_ids,
            "domain": domains,
            "text": column,
            "source": [f"/data/{number:03d}.jsonl.zst"] * ROWS_A_SHARD,
            "line": whole,
            "offset": whole,
            "sha256": [hashlib.sha256(text.encode()).hexdigest() for text in column],
            "bytes": [len(text) for text in column],
            "meta": ['{"license":"CC0"}'] * ROWS_A_SHARD,
        }
        documents.append(store.write_shard("length", f"documents{number:03d}", pa.table(made).cast(DOCUMENTS)))
        scored: dict[str, Any] = {name: pa.nulls(ROWS_A_SHARD) for name in SCORES.names}
        scored |= {
            "window_id": [f"{doc_id}:0" for doc_id in doc_ids],
            "doc_id": doc_ids,
            "domain": domains,
            "window_index": np.zeros(ROWS_A_SHARD, np.int32),
            "n_tokens": np.full(ROWS_A_SHARD, 64, np.int32),
            "doc_tokens": chance.integers(100, 300, ROWS_A_SHARD),
            "doc_tokens_exact": np.ones(ROWS_A_SHARD, bool),
            "cds": chance.random(ROWS_A_SHARD),
            "cds_per_layer": [[0.5] * 11] * ROWS_A_SHARD,
            "layers": [list(range(14, 25))] * ROWS_A_SHARD,
        }
        scores.append(store.write_shard("score", f"scores{number:03d}", pa.table(scored).cast(SCORES)))
    return documents, scores


@dataclass(frozen=True)
class Million:
    """A store with a million documents, ranked and all selected."""

    store: Store
    documents: list[Shard]
    ranked: Manifest
    model: Path


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Million]:
    """Made by arithmetic; the tokenizer knows whole words, so that it takes its time over memory alone."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("million")
    model = folder / "model"
    shutil.copytree(tiny_model, model)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["?", *WORDS])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(model)
    store = Store(str(folder / "store"))
    documents, scores = shards_of(store)
    select = SelectConfig(budget_tokens=250_000_000, max_source_share=0.2).model_dump()
    job = Job(
        stage="rank",
        label="a million",
        store=store.uri,
        config=select,
        inputs={"scores": scores, "documents": documents},
    )
    ranked = measured(job)
    assert ranked.measures["selected_documents"] == ROWS
    yield Million(store, documents, ranked, model)
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("form", EXPORTERS)
def test_every_export_of_a_million_rows_keeps_within_two_gigabytes(million: Million, form: str) -> None:
    of_tokens = issubclass(EXPORTERS[form].entry, TokenExport)
    config: dict[str, Any] = {"format": form, "shuffle": 1, "validation": 0.01}
    if of_tokens:
        config |= {"eos": 0, "pack": {"length": 4096}}
    job = Job(
        stage="export",
        label=form,
        store=million.store.uri,
        config=config,
        inputs={"ranking": million.ranked.shards, "documents": million.documents},
        identity=[resolve_model(str(million.model)).tokenizer_digest] if of_tokens else [],
        environment={"model": str(million.model)},
    )
    manifest = measured(job)
    assert manifest.counts.kept == ROWS
    assert len(manifest.files) >= 4
    for file in manifest.files:
        million.store.remove(file.path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_card_of_a_million_rows_keeps_within_two_gigabytes(million: Million) -> None:
    about = {
        "run": load_config().model_dump(mode="json"),
        "config_sha256": "",
        "model": {"reference": "m", "digest": "d"},
        "versions": {},
    }
    inputs = {
        "ranking": million.ranked.shards,
        "allocation": million.ranked.files,
        "documents": million.documents,
    }
    job = Job(stage="card", label="", store=million.store.uri, config=about, inputs=inputs)
    assert measured(job).counts.kept == ROWS


# -- duplicates ----------------------------------------------------------------------------------------------

WORDS_A_TEXT = 400
PLANTED_EVERY = 100


def words_of(chance: np.random.Generator, documents: int) -> npt.NDArray[np.uint64]:
    """Documents of words that are as unequally common as in real texts, shape [documents, words]."""
    vocabulary = np.random.default_rng(0).integers(0, 2**63, 50_000, dtype=np.uint64)
    commonness = np.cumsum(1 / np.arange(1, len(vocabulary) + 1))
    drawn = chance.random((documents, WORDS_A_TEXT)) * commonness[-1]
    return vocabulary[np.searchsorted(commonness, drawn)]


def tenth_changed(chance: np.random.Generator, words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Copies with other words in every tenth place."""
    copies = words.copy()
    for row in copies:
        places = chance.choice(WORDS_A_TEXT, WORDS_A_TEXT // 10, replace=False)
        row[places] = words_of(chance, 1)[0, : len(places)]
    return copies


def signed_shards(store: Store, near: NearConfig) -> Iterator[list[Shard]]:
    """Shards of signatures and of windows; each hundredth document is a near duplicate of the one before it."""
    for number in range(ROWS // ROWS_A_SHARD):
        chance = np.random.default_rng(number)
        words = words_of(chance, ROWS_A_SHARD)
        words[1::PLANTED_EVERY] = tenth_changed(chance, words[::PLANTED_EVERY])
        doc_ids = [f"{number:03d}{place:06d}" for place in range(ROWS_A_SHARD)]
        signs: list[list[int] | None] = []
        for first in range(0, ROWS_A_SHARD, 500):
            sets = [shingles(row, near.words) for row in words[first : first + 500]]
            signs += minhashes(sets, near.permutations, near.seed)
        lines = np.arange(1, ROWS_A_SHARD + 1)
        shared = {"doc_id": doc_ids, "domain": ["x"] * ROWS_A_SHARD}
        signatures: dict[str, Any] = {name: pa.nulls(ROWS_A_SHARD) for name in SIGNATURES.names}
        signatures |= {**shared, "source": [f"/data/{number:03d}"] * ROWS_A_SHARD, "line": lines}
        signatures |= {"content": doc_ids, "minhash": pa.array(signs, pa.list_(pa.uint32()))}
        windows: dict[str, Any] = {name: np.zeros(ROWS_A_SHARD, np.int32) for name in WINDOWS.names}
        windows |= {**shared, "window_id": doc_ids, "input_ids": [[]] * ROWS_A_SHARD}
        windows |= {"doc_tokens_exact": np.ones(ROWS_A_SHARD, bool)}
        yield [
            store.write_shard("signatures", f"signatures{number:03d}", pa.table(signatures).cast(SIGNATURES)),
            store.write_shard("tokenize", f"windows{number:03d}", pa.table(windows).cast(WINDOWS)),
        ]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_comparing_a_million_documents_keeps_within_two_gigabytes(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    config = DeduplicateConfig()
    assert config.near is not None
    shards = [shard for both in signed_shards(store, config.near) for shard in both]
    inputs = by_role(shards, signatures="signatures", windows="tokenize")
    job = Job(stage="dedup", label="a million", store=store.uri, config=config.model_dump(), inputs=inputs)
    manifest = measured(job)
    dropped = store.read_shard(manifest.files[0]).to_pylist()
    planted = ROWS // PLANTED_EVERY
    found = sum((row["line"] % PLANTED_EVERY, row["twin_line"]) == (2, row["line"] - 1) for row in dropped)
    print(f"near duplicates: found {found:,} of {planted:,}; others dropped: {len(dropped) - found:,}")
    assert found >= 0.95 * planted
    assert len(dropped) - found <= 0.01 * ROWS
