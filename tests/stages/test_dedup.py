"""Duplicates and benchmark passages are found, little else is, and nothing that stays the same is scored again."""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import SHARED, Answer, Corpus, by_role, run_arguments
from hypothesis import given, settings
from hypothesis import strategies as st

from ladm.flows.config import load_config
from ladm.tasks.errors import ConfigError
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard, SourceFile
from ladm.tasks.schema import WINDOWS
from ladm.tasks.shingles import WordHasher, minhashes, ngrams, normal_form, shingles
from ladm.tasks.stages.benchmarks import benchmarks
from ladm.tasks.stages.dedup import FEWEST_FOUND, NEIGHBOURS, NearConfig, bands_of, dedup, kept_twins
from ladm.tasks.stages.ingest import ingest
from ladm.tasks.stages.signatures import signatures
from ladm.tasks.storage.store import Store, table_of

Cli = Callable[..., Answer]
NEAR = NearConfig().model_dump()


# -- helpers -------------------------------------------------------------------------------------------------


def made_up_words(seed: int, number: int = 5000) -> list[str]:
    """Words of a language of nobody."""
    chance = random.Random(seed)
    return ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(number)]


def made_up_texts(seed: int, documents: int, words: int = 400) -> list[str]:
    """Texts over one vocabulary, in which words are as unequally common as in real ones."""
    chance, vocabulary = random.Random(seed), made_up_words(0)
    weights = [1 / (rank + 1) for rank in range(len(vocabulary))]
    return [" ".join(chance.choices(vocabulary, weights, k=words)) for _ in range(documents)]


def tenth_changed(text: str, chance: random.Random, vocabulary: Sequence[str]) -> str:
    """A copy in which another word stands for every tenth word, on average, whatever the white space between them."""
    parts = re.split(r"(\s+)", text)
    places = [place for place in range(0, len(parts), 2) if parts[place]]
    for place in chance.sample(places, round(len(places) / 10)):
        parts[place] = chance.choice(vocabulary)
    return "".join(parts)


def with_passage(text: str, passage: str, chance: random.Random) -> str:
    """A text in whose midst a passage stands, set in other lines and in capitals."""
    cut = chance.choice([match.start() for match in re.finditer(r"\s", text)] or [len(text)])
    words = passage.upper().split()
    return f"{text[:cut]} “{' '.join(words[:7])}\n\n{' '.join(words[7:])}”, {text[cut:]}"


def jsonl(path: Path, texts: Iterable[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


class Sifted:
    """The stages before scoring on some files, without a model: every document is taken to give one window."""

    def __init__(
        self,
        store: Store,
        files: Sequence[Path],
        passages: Path | None = None,
        near: Any = NEAR,
        shard_bytes: int = 2**22,
    ) -> None:
        self.store = store
        found = [self.benchmark_shard(passages)] if passages else []
        shards = [shard for file in files for shard in self.document_shards(file, shard_bytes)]
        signed = {"words": near["words"], "permutations": near["permutations"], "seed": near["seed"]} if near else None
        inputs: list[Shard] = []
        self.documents = 0
        for shard in shards:
            job = self.job("signatures", {"near": signed}, {"documents": [shard], "benchmarks": found})
            inputs += signatures(job, store, f"signatures{shard.key}").shards
            inputs.append(self.windows(shard))
            self.documents += shard.rows
        self.outcome = dedup(
            self.job(
                "dedup", {"exact": True, "near": near}, by_role(inputs, signatures="signatures", windows="tokenize")
            ),
            store,
            "dedup",
        )
        self.outcome.counts.check("dedup")
        self.dropped: list[dict[str, Any]] = store.read_shard(self.outcome.files[0]).to_pylist()

    def job(
        self, stage: str, config: dict[str, Any], inputs: dict[str, list[Shard]], source: SourceFile | None = None
    ) -> Job:
        return Job(stage=stage, label="x", store=self.store.uri, config=config, inputs=inputs, source=source)

    def source(self, file: Path) -> SourceFile:
        status = file.stat()
        return SourceFile(uri=str(file), size=status.st_size, version=str(status.st_mtime_ns))

    def document_shards(self, file: Path, shard_bytes: int) -> list[Shard]:
        config = {"text": "text", "domain": {"const": "x"}, "format": "auto", "shard_bytes": shard_bytes}
        return ingest(self.job("ingest", config, {}, self.source(file)), self.store, file.name).shards

    def benchmark_shard(self, file: Path) -> Shard:
        config = {"text": "text", "format": "auto", "max_record_bytes": 2**20, "ngram": 13, "shortest": 8}
        (shard,) = benchmarks(self.job("benchmarks", config, {}, self.source(file)), self.store, file.name).shards
        return shard

    def windows(self, shard: Shard) -> Shard:
        ids = self.store.read_shard(shard)["doc_id"].to_pylist()
        rows: dict[str, list[Any]] = {name: [0] * len(ids) for name in WINDOWS.names}
        rows |= {"doc_id": ids, "window_id": ids, "domain": ids, "input_ids": [[]] * len(ids)}
        rows["doc_tokens_exact"] = [True] * len(ids)
        return self.store.write_shard("tokenize", f"windows{shard.key}", table_of(rows, WINDOWS))

    def of(self, reason: str) -> dict[tuple[str, int], dict[str, Any]]:
        """(file name, line) → the drop, of those for one reason."""
        return {(Path(row["source"]).name, row["line"]): row for row in self.dropped if row["reason"] == reason}


# -- words and numbers ---------------------------------------------------------------------------------------


def test_what_makes_no_difference_makes_none() -> None:
    hasher = WordHasher()
    plain = hasher.words(normal_form("the office of 12 fine words"))
    assert len(plain) == 6
    for other in ("The  OFFICE\n of — 12, “fine” words!", "the oﬀice of １２ ﬁne words"):
        assert hasher.words(normal_form(other)).tolist() == plain.tolist()
    assert normal_form("A  b\n\tC") == normal_form("a b c") != normal_form("a, b c")
    assert len(hasher.words(normal_form("東京は 晴れ tokyo"))) == 6
    assert WordHasher().words("office").tolist() == plain[1:2].tolist()


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=40), st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 3))
def test_shingles_are_compared_as_multisets(first: list[str], second: list[str], n: int) -> None:
    def runs(words: list[str]) -> Counter[tuple[str, ...]]:
        return Counter(tuple(words[place : place + n]) for place in range(len(words) - n + 1))

    hasher = WordHasher()
    one, other = (set(shingles(hasher.words(" ".join(words)), n).tolist()) for words in (first, second))
    assert len(one) == runs(first).total()
    assert len(one & other) == (runs(first) & runs(second)).total()
    assert len(one | other) == (runs(first) | runs(second)).total()


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), max_size=30), st.lists(st.sampled_from("abcd"), min_size=1, max_size=5))
def test_a_run_is_found_where_it_stands(text: list[str], run: list[str]) -> None:
    hasher = WordHasher()
    (looked_for,) = ngrams(hasher.words(" ".join(run)), len(run)).tolist()
    found = ngrams(hasher.words(" ".join(text)), len(run)).tolist()
    assert [value == looked_for for value in found] == [
        text[place : place + len(run)] == run for place in range(max(0, len(text) - len(run) + 1))
    ]


def test_signatures_estimate_similarity_without_bias() -> None:
    chance = np.random.default_rng(0)
    errors = []
    for common in range(0, 1000, 20):
        values = chance.integers(0, 2**63, size=2000 - common, dtype=np.uint64)
        one, other = minhashes([values[:1000], values[1000 - common :]], 256, 0)
        assert one is not None
        assert other is not None
        estimate = float(np.mean(np.array(one) == np.array(other)))
        errors.append(estimate - common / (2000 - common))
    assert abs(np.mean(errors)) < 0.01
    assert max(map(abs, errors)) < 0.15
    assert minhashes([np.array([], dtype=np.uint64)], 16, 0) == [None]


@pytest.mark.parametrize("threshold", [0.2, 0.55, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("permutations", [16, 128, 250])
def test_bands_find_pairs_at_the_threshold(threshold: float, permutations: int) -> None:
    bands, rows = bands_of(threshold, permutations)
    assert bands * rows <= permutations
    found = 1 - (1 - threshold**rows) ** bands
    assert found >= FEWEST_FOUND or rows == 1
    longer = permutations // (rows + 1)
    assert rows == permutations or 1 - (1 - threshold ** (rows + 1)) ** longer < FEWEST_FOUND


def test_a_document_falls_only_for_one_that_stays() -> None:
    # 1 and 2 are alike, 2 and 3 are alike, 1 and 3 are not; 4 is like 3 and even more like 2.
    pairs = [(2, 1, 0.9), (3, 2, 0.9), (4, 2, 0.99), (4, 3, 0.8)]
    assert list(kept_twins(iter(pairs))) == [(2, 1, 0.9), (4, 3, 0.8)]


# -- what is found -------------------------------------------------------------------------------------------


def planted(folder: Path, texts: list[str], every: int) -> tuple[Sifted, int, int]:
    """Plant near duplicates and benchmark passages, one of each in `every` documents; print what is found (-rP).

    Returns also how many documents were dropped of those that are neither, and how many of these there are.
    """
    chance = random.Random(1)
    vocabulary = [word for text in texts[::10] for word in text.split()]
    passages = [" ".join(chance.choices(vocabulary, k=chance.randint(15, 80))) for _ in range(40)]
    copied = list(range(0, len(texts), every))
    contaminated = list(range(every // 2, len(texts), every))
    originals = list(texts)
    for place in contaminated:
        originals[place] = with_passage(texts[place], chance.choice(passages), chance)
    files = [
        jsonl(folder / "a-originals.jsonl", originals),
        jsonl(folder / "b-copies.jsonl", [tenth_changed(texts[place], chance, vocabulary) for place in copied]),
    ]
    sifted = Sifted(Store(str(folder / "store")), files, jsonl(folder / "passages.jsonl", passages))
    near, held = sifted.of("near duplicate"), sifted.of("benchmark passage")
    found = [
        line
        for line, place in enumerate(copied, start=1)
        if (drop := near.get(("b-copies.jsonl", line)))
        and (Path(drop["twin_source"]).name, drop["twin_line"]) == ("a-originals.jsonl", place + 1)
    ]
    found_passages = [place for place in contaminated if ("a-originals.jsonl", place + 1) in held]
    others = len(sifted.dropped) - len(found) - len(found_passages)
    innocent = sifted.documents - len(copied) - len(contaminated)
    by_reason = Counter(row["reason"] for row in sifted.dropped)
    for what, hits, of, reason in (
        ("near duplicates", len(found), len(copied), "near duplicate"),
        ("passages", len(found_passages), len(contaminated), "benchmark passage"),
    ):
        print(
            f"{what}: recall {hits}/{of} = {100 * hits / of:.2f} %, "
            f"precision {hits}/{by_reason[reason]} = {100 * hits / by_reason[reason]:.2f} %"
        )
    print(f"others dropped: {others} of {innocent} = {100 * others / innocent:.2f} %")
    assert len(found) >= 0.95 * len(copied)
    assert len(found_passages) >= 0.95 * len(contaminated)
    return sifted, others, innocent


def test_planted_duplicates_and_passages_are_found_in_made_up_text(tmp_path: Path) -> None:
    _, others, innocent = planted(tmp_path, made_up_texts(1, 200), every=3)
    assert others <= 0.01 * innocent


@pytest.fixture(scope="module")
def real() -> list[str]:
    folder = SHARED / "corpus"
    if not folder.is_dir():
        pytest.skip("../shared/corpus is not here")
    return [
        json.loads(line)["text"]
        for file in sorted(folder.glob("*.jsonl.zst"))
        for line in zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read().decode().splitlines()
    ]


def test_planted_duplicates_and_passages_are_found_in_the_real_corpus(tmp_path: Path, real: list[str]) -> None:
    _, others, innocent = planted(tmp_path, real, every=6)
    assert others <= 0.01 * innocent


def test_the_real_corpus_holds_few_near_duplicates_and_they_are_alike(tmp_path: Path, real: list[str]) -> None:
    from difflib import SequenceMatcher

    sifted = Sifted(Store(str(tmp_path / "store")), [jsonl(tmp_path / "real.jsonl", real)])
    assert 0 < len(sifted.dropped) <= 0.01 * len(real)
    for row in sifted.dropped:
        one, twin = (real[row[name] - 1].split() for name in ("line", "twin_line"))
        assert SequenceMatcher(None, one, twin, autojunk=False).ratio() > 0.6  # versions of one licence


def test_exact_duplicates_stay_once_and_the_first_stays(tmp_path: Path) -> None:
    texts = made_up_texts(3, 6)
    first = jsonl(tmp_path / "a.jsonl", [texts[0], texts[1], texts[0].upper()])
    second = jsonl(tmp_path / "b.jsonl", [texts[2], texts[1].replace(" ", "\n"), texts[3], texts[3]])
    sifted = Sifted(Store(str(tmp_path / "store")), [second, first], near=None)
    found = sifted.of("exact duplicate")
    assert {place: (Path(row["twin_source"]).name, row["twin_line"]) for place, row in found.items()} == {
        ("a.jsonl", 3): ("a.jsonl", 1),
        ("b.jsonl", 2): ("a.jsonl", 2),
        ("b.jsonl", 4): ("b.jsonl", 3),
    }
    assert len(sifted.dropped) == 3
    assert sifted.outcome.counts.dropped == {"exact duplicate": 3}
    ids = {row["doc_id"] for row in sifted.dropped}
    listed = [set(sifted.store.read_shard(shard)["doc_id"].to_pylist()) for shard in sifted.outcome.shards]
    assert set().union(*listed) == ids
    assert sorted(map(len, listed)) == [1, 2]


def test_a_contaminated_document_is_nobodys_twin(tmp_path: Path) -> None:
    (text,) = made_up_texts(4, 1)
    passage = " ".join(made_up_words(7, 20))
    file = jsonl(tmp_path / "a.jsonl", [f"{text} {passage}", text, f"{passage} {text}"])
    sifted = Sifted(Store(str(tmp_path / "store")), [file], jsonl(tmp_path / "p.jsonl", ["two words", passage]))
    assert {line: row["reason"] for (_, line), row in sifted.of("benchmark passage").items()} == {
        1: "benchmark passage",
        3: "benchmark passage",
    }
    assert len(sifted.dropped) == 2
    for row in sifted.dropped:
        assert (row["twin_id"], Path(row["twin_source"]).name, row["twin_line"]) == (None, "p.jsonl", 2)
        assert row["similarity"] == 1.0


def test_short_passages_are_found_whole_and_very_short_ones_not(tmp_path: Path) -> None:
    words = made_up_words(8, 13)
    texts = made_up_texts(5, 4)
    nine, seven = " ".join(words[:9]), " ".join(words[:7])
    file = jsonl(tmp_path / "a.jsonl", [f"{texts[0]} {nine}", f"{texts[1]} {' '.join(words[:8])}", texts[2]])
    sifted = Sifted(Store(str(tmp_path / "store")), [file], jsonl(tmp_path / "p.jsonl", [seven, nine]))
    assert [(row["line"], row["twin_line"]) for row in sifted.dropped] == [(1, 2)]


@pytest.mark.parametrize("shard_bytes", [3000, 40_000])
def test_neither_shards_nor_their_order_matter(tmp_path: Path, shard_bytes: int) -> None:
    texts = made_up_texts(6, 60, words=200)
    chance = random.Random(2)
    copies = [tenth_changed(text, chance, made_up_words(0)) for text in texts[:20]]
    twice = [tenth_changed(text, chance, made_up_words(0)) for text in copies[:10]]
    files = [jsonl(tmp_path / "a.jsonl", texts), jsonl(tmp_path / "b.jsonl", copies + twice + texts[30:35])]
    whole = Sifted(Store(str(tmp_path / "whole")), files)
    parts = Sifted(Store(str(tmp_path / "parts")), files[::-1], shard_bytes=shard_bytes)
    assert len(parts.outcome.shards) > len(whole.outcome.shards)
    assert parts.dropped == whole.dropped
    assert len(whole.dropped) >= 25


def test_of_very_many_alike_the_first_stays(tmp_path: Path) -> None:
    words = made_up_texts(8, 1)[0].split()
    texts = [" ".join([*words[:place], f"other{place}", *words[place + 1 :]]) for place in range(2 * NEIGHBOURS + 20)]
    sifted = Sifted(Store(str(tmp_path / "store")), [jsonl(tmp_path / "a.jsonl", texts)])
    assert [(row["line"], row["twin_line"]) for row in sifted.dropped] == [
        (line, 1) for line in range(2, len(texts) + 1)
    ]


# -- through the whole DAG -----------------------------------------------------------------------------------


@pytest.fixture
def repeated(corpus: Corpus) -> Corpus:
    """The tiny corpus with texts of its own: `c.jsonl` holds an exact and a near duplicate, `d.jsonl` none."""
    for file in corpus.folder.iterdir():
        file.unlink()
    texts = made_up_texts(9, 8, words=150)
    changed = tenth_changed(texts[1], random.Random(3), made_up_words(0))
    for name, content in {"b": texts[:3], "c": [texts[0], texts[3], changed], "d": texts[4:6]}.items():
        jsonl(corpus.folder / f"{name}.jsonl", content)
    return corpus


def scored(record: dict[str, Any]) -> dict[str, bool]:
    """File → whether its windows were scored in this run, or found in the store."""
    jobs = [job for job in record["shards"] if job["stage"] == "score"]
    return {Path(job["source"]).name: not job["cached"] for job in jobs}


def test_duplicates_are_not_scored_and_only_what_changed_is(tmp_path: Path, repeated: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    before = ladm(*run_arguments(repeated, store)).record
    assert "dedup" not in before["stages"]
    assert before["windows_scored"] == 8

    answer = ladm(*run_arguments(repeated, store, "deduplicate=true"))
    assert answer.code == 0, answer.err
    record = answer.record
    assert scored(record) == {"b.jsonl": False, "c.jsonl": True, "d.jsonl": False}
    assert record["windows_scored"] == 0, "what was scored before is taken over"
    stages = record["stages"]
    assert stages["score"]["windows_reused"] == 1
    assert (stages["dedup"]["in"], stages["dedup"]["kept"]) == (8, 6)
    assert stages["dedup"]["dropped"] == {"exact duplicate": 1, "near duplicate": 1}
    assert (stages["signatures"]["in"], stages["score"]["in"], stages["rank"]["documents"]) == (8, 6, 6)
    rows = json.loads(ladm("sql", "from dropped order by line", "--store", store, "--format", "json").out)
    assert [(Path(row["source"]).name, row["line"], row["reason"], row["twin_line"]) for row in rows] == [
        ("c.jsonl", 1, "exact duplicate", 1),
        ("c.jsonl", 3, "near duplicate", 2),
    ]
    query = (
        "select count(*) as n from dropped join documents twin on twin.doc_id = twin_id where twin.source = twin_source"
    )
    assert json.loads(ladm("sql", query, "--store", store, "--format", "json").out) == [{"n": 2}]
    assert pq.read_table(store / "runs" / record["run_id"] / "dropped.parquet").num_rows == 2

    again = ladm(*run_arguments(repeated, store, "deduplicate=true")).record
    assert all(summary["run"] == 0 for summary in again["stages"].values())

    # another threshold: no signature is made again, and as the same documents fall, nothing is scored or ranked again
    stricter = ladm(*run_arguments(repeated, store, "deduplicate.near.threshold=0.5")).record
    assert {stage for stage, summary in stricter["stages"].items() if summary["run"]} == {"dedup"}

    # a file that comes first and holds what `d` holds: only `d` is scored again, with what is left of it
    texts = [json.loads(line)["text"] for line in (repeated.folder / "d.jsonl").read_text().splitlines()]
    jsonl(repeated.folder / "a.jsonl", texts[:1])
    grown = ladm(*run_arguments(repeated, store, "deduplicate=true")).record
    assert scored(grown) == {"a.jsonl": True, "b.jsonl": False, "c.jsonl": False, "d.jsonl": True}
    assert grown["stages"]["rank"]["documents"] == 6

    off = ladm(*run_arguments(repeated, store)).record
    assert (off["stages"]["rank"]["documents"], scored(off)["c.jsonl"]) == (9, False)


def test_a_shard_that_fails_before_the_comparison_leaves_scoring_to_the_next_run(
    tmp_path: Path, repeated: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladm.tasks.stages import tokenize

    working = tokenize.cut_documents

    def failing(texts: list[str], *more: Any) -> Any:
        if len(texts) == 2:  # d.jsonl
            raise OSError("gone")
        return working(texts, *more)

    monkeypatch.setattr(tokenize, "cut_documents", failing)
    store = tmp_path / "store"
    failed = ladm(*run_arguments(repeated, store, "deduplicate=true"))
    assert failed.code == 1
    assert (failed.record["stages"]["tokenize"]["run"], failed.record["windows_scored"]) == (2, 0)
    monkeypatch.setattr(tokenize, "cut_documents", working)
    again = ladm(*run_arguments(repeated, store, "deduplicate=true")).record
    assert (again["stages"]["tokenize"]["run"], again["stages"]["rank"]["documents"]) == (1, 6)


def test_documents_that_hold_a_passage_are_dropped(tmp_path: Path, repeated: Corpus, ladm: Cli) -> None:
    passage = " ".join(made_up_words(7, 20))
    texts = [json.loads(line)["text"] for line in (repeated.folder / "d.jsonl").read_text().splitlines()]
    jsonl(repeated.folder / "d.jsonl", [texts[0], f"{texts[1]} {passage.title()}. {texts[1]}"])
    os.utime(repeated.folder / "d.jsonl", ns=(1, 1))
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"question": passage, "answer": "b"}) + "\n" + json.dumps({"question": "why?"}) + "\n")
    (tmp_path / "other.txt").write_text("nothing of this is anywhere in the corpus, it is only here to be read")
    store = tmp_path / "store"
    against = f"decontaminate.against=[{{uri: {asked}, text: question}}, {tmp_path}/other.txt]"
    answer = ladm(*run_arguments(repeated, store, against))
    assert answer.code == 0, answer.err
    stages = answer.record["stages"]
    assert (stages["benchmarks"]["in"], stages["benchmarks"]["kept"]) == (3, 2)
    assert stages["dedup"]["dropped"] == {"benchmark passage": 1}
    query = "select source, line, reason, twin_id, twin_source, twin_line, similarity from dropped"
    assert json.loads(ladm("sql", query, "--store", store, "--format", "json").out) == [
        {"source": str(repeated.folder / "d.jsonl"), "line": 2, "reason": "benchmark passage", "twin_id": None,
         "twin_source": str(asked), "twin_line": 1, "similarity": 1.0}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["deduplicate.near.treshold=1"], "deduplicate.near.treshold: unknown key; did you mean 'threshold'?"),
        (["deduplicate.near.threshold=2"], "deduplicate.near.threshold: input should be less than or equal to 1"),
        (["decontaminate.against=[]"], "decontaminate.against: list should have at least 1 item"),
        (["decontaminate={}"], "decontaminate.against: missing"),
        (["decontaminate.against=x.txt", "decontaminate.ngram=5"], "decontaminate: shortest (8) is more than ngram"),
    ],
)
def test_what_cannot_be_asked_is_refused(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(overrides=overrides)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_benchmark_that_cannot_be_read_is_refused_before_any_work(
    tmp_path: Path, corpus: Corpus, ladm: Cli
) -> None:  # fmt: skip
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"question": "what?"}\n')
    for against, reason in {asked: "no field 'text'; set its `text`", tmp_path / "none.txt": "no file matches"}.items():
        answer = ladm(*run_arguments(corpus, tmp_path / "store", f"decontaminate.against={against}"))
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert "decontaminate.against[0]" in answer.err
        assert reason in answer.err
    assert not (tmp_path / "store" / "ingest").exists()
    answer = ladm(*run_arguments(corpus, tmp_path / "store"), "--until", "dedup")
    assert (answer.code, "'dedup' is not a stage of this run; set deduplicate" in answer.err) == (2, True)
