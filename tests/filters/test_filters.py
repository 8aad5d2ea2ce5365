"""Filters: what is refused before any work, what they drop and quarantine, what is done again when they change."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments, write_jsonl

from ladm.flows.config import RunConfig, load_config
from ladm.flows.dag.stages import STAGES, TABLE
from ladm.tasks.errors import ConfigError
from ladm.tasks.filters.config import FilterConfig
from ladm.tasks.filters.loading import filters_of_job, load_filters
from ladm.tasks.filters.sieve import COLUMNS, MOST_REASONS, Sieve
from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard

Cli = Callable[..., Answer]
MINE = '''
def is_welcome(text, meta):
    """Says what it thinks of the corpus's documents by their number of words."""
    assert meta == {"meta": {"pile_set_name": meta["meta"]["pile_set_name"], "license": "CC0"}}
    words = len(text.split())
    if words == 400:
        return False, 'four  hundred\\n"words"'
    if words == 450:
        raise KeyError("lang")
    return words not in (5, 25)


def is_broken(text, meta):
    raise ValueError("no\\nmatter what")


def says_nothing(text, meta):
    pass


def takes_one(text):
    return True


number = 3
'''
STUB = {
    "datatrove/__init__.py": "",
    "datatrove/data.py": "from dataclasses import dataclass, field\n\n\n@dataclass\nclass Document:\n    text: str\n"
    "    id: str\n    media: list = field(default_factory=list)\n    metadata: dict = field(default_factory=dict)\n",
    "datatrove/pipeline/__init__.py": "",
    "datatrove/pipeline/filters/__init__.py": "",
    "datatrove/pipeline/filters/base_filter.py": "class BaseFilter:\n    def __new__(cls, *args, **kwargs):\n"
    "        return super().__new__(cls)\n\n    def __init__(self):\n        pass\n",
    "datatrove-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: datatrove\nVersion: 0.1\n",
}
"""As much of datatrove as a filter is made of, for where it is not installed."""
LIKE_DATATROVE = """
from datatrove.pipeline.filters.base_filter import BaseFilter


class Longest(BaseFilter):
    def __init__(self, words: int, lazily: str = ""):
        super().__init__()
        self.words, self.lazily = words, lazily
        if words < 0:
            raise ValueError("words must not be negative")

    def filter(self, doc):
        if self.lazily:
            __import__(self.lazily)
        assert doc.id is not None and isinstance(doc.metadata, dict)
        return (False, "long") if len(doc.text.split()) > self.words else True
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's modules, in which `ladm` is started; datatrove, or a stub of it, can be imported."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "my_filters.py").write_text(MINE)
    (folder / "like_datatrove.py").write_text(LIKE_DATATROVE)
    (folder / "spoilt.py").write_text("def (:\n")
    stubbed = importlib.util.find_spec("datatrove") is None
    if stubbed:
        for name, text in STUB.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(folder)
    yield folder
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name in ("my_filters", "like_datatrove") or (stubbed and name.split(".")[0] == "datatrove"):
            del sys.modules[name]


def rows(ladm: Cli, store: Path, query: str) -> Any:
    return json.loads(ladm("sql", query, "--store", store, "--format", "json").out)


def ran(record: dict[str, Any]) -> dict[str, int]:
    """Stage → jobs that were done, of those that did any."""
    return {stage: summary["run"] for stage, summary in record["stages"].items() if summary["run"]}


# -- the configuration -----------------------------------------------------------------------------------------


def test_shorthand_and_names(tmp_path: Path) -> None:
    def configured(filters: object) -> list[FilterConfig]:
        return RunConfig.model_validate({"sources": "x", "filters": filters}).filters

    assert configured("repetition") == configured([{"repetition": None}]) == configured([{"repetition": True}])
    found = configured(
        [
            "repetition",
            "my.module:check",
            {"datatrove": "datatrove.pipeline.filters.GopherQualityFilter", "arguments": {"min_doc_words": 5}},
            {"repetition": {"duplicate_lines": None}, "name": "lines"},
        ]
    )
    assert [one.called for one in found] == ["repetition", "check", "GopherQualityFilter", "lines"]
    assert [FilterConfig.model_validate(one.key_config()).key_config() for one in found] == [
        one.key_config() for one in found
    ]
    whole = RunConfig.model_validate({"sources": "x", "filters": found})
    assert RunConfig.model_validate(whole.model_dump(mode="json")) == whole
    assert "filters" not in RunConfig.model_validate({"sources": "x"}).model_dump()
    (tmp_path / "c.yaml").write_text("sources: x\nfilters: [repetition]\n")
    changed = load_config(str(tmp_path / "c.yaml"), ["filters.0.repetition.top_2_gram=0.5", "filters.0.name=mine"])
    assert (changed.filters[0].called, changed.filters[0].repetition.top_2_gram) == ("mine", 0.5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ("[quality]", "filters.0: 'quality' is not a built-in filter (repetition); give module:function, or {data"),
        ("[{repetition: {top_2_grams: 1}}]", "filters.0.repetition.top_2_grams: unknown key; did you mean"),
        ("[{repetition: {top_2_gram: 2}}]", "filters.0.repetition.top_2_gram: input should be less than or equal to 1"),
        ("[{name: x}]", "filters.0: no filter is given; give one of repetition, datatrove, function"),
        ("[{repetition: {}, function: 'a:b'}]", "filters.0: repetition and function are given; give one"),
        ("[{function: 'my_filters:is_welcome', arguments: {a: 1}}]", "filters.0: arguments are for datatrove, not for"),
        ("[repetition, {repetition: {}}]", "filters[0] and filters[1] are both called 'repetition'; give one another"),
        ("[repetition, 'no_such_module:f']", "filters[1]: cannot import 'no_such_module' (ModuleNotFoundError: No mod"),
        ("['spoilt:f']", "filters[0]: cannot import 'spoilt' (SyntaxError: invalid syntax"),
        ("['my_filters:is_welcom']", "filters[0]: my_filters has no 'is_welcom'; did you mean 'is_welcome'?"),
        ("['my_filters:number']", "filters[0]: my_filters:number is not a function but of type int; name a function"),
        ("['my_filters:takes_one']", "filters[0]: my_filters:takes_one cannot be called with (text, meta): too many"),
        ("['my_filters:']", "filters[0]: 'my_filters:' is not of the form module:function"),
        ("[{datatrove: Longest}]", "filters[0]: 'Longest' is not of the form package.module.Class"),
        ("[{datatrove: my_filters.is_broken}]", "filters[0]: my_filters.is_broken is not a filter of datatrove; name"),
        ("[{datatrove: datatrove.pipeline.filters.NoFilter}]", "filters[0]: datatrove.pipeline.filters has no 'NoFil"),
        ("[{datatrove: like_datatrove.Longest, arguments: {word: 1}}]",
         "filters[0].arguments: Longest does not take them: missing a required argument: 'words'; it takes words, l"),
        ("[{datatrove: like_datatrove.Longest, arguments: {words: -1}}]",
         "filters[0]: Longest cannot be made (ValueError: words must not be negative); change its arguments"),
        ("[{datatrove: like_datatrove.Longest, arguments: {words: 1, lazily: no_such_package}}]",
         "filters[0]: Longest lacks a package (ModuleNotFoundError: No module named 'no_such_package'); install it"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_before_any_work(
    tmp_path: Path, corpus: Corpus, ladm: Cli, mine: Path, filters: str, told: str
) -> None:
    answer = ladm(*run_arguments(corpus, tmp_path / "store", f"filters={filters}"))
    assert answer.code == 2
    (line,) = answer.err.strip().splitlines()
    assert told in line
    assert not (tmp_path / "store" / "runs").exists()


def test_datatrove_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"filters\[0\]: the package datatrove is not installed; pip install 'ladm\[f"
    ):
        load_filters([FilterConfig(datatrove="datatrove.pipeline.filters.GopherQualityFilter")])


# -- what they do ----------------------------------------------------------------------------------------------


def test_filtered_documents_are_in_no_ranking_replay_or_export(
    tmp_path: Path, corpus: Corpus, ladm: Cli, mine: Path
) -> None:
    write_jsonl(corpus.folder / "notes.jsonl", "Poems", 5, [20, 30, 25, 15])
    store = tmp_path / "store"
    settings = [
        "filters=[repetition, 'my_filters:is_welcome']", "deduplicate={near: false}",
        "select={budget_tokens: 100000, replay: {share: 0.5}, max_source_share: 0.9}",
    ]  # fmt: skip
    answer = ladm(*run_arguments(corpus, store, *settings))
    assert answer.code == 0, answer.err
    stages = answer.record["stages"]
    counts = {stage: (one["in"], one["kept"], one["dropped"], one["quarantined"]) for stage, one in stages.items()}
    # of 13 documents five have too few bytes; of the others one falls, one raises, one fills no window all the same
    assert counts["filter"] == (8, 6, {"is_welcome: four hundred 'words'": 1}, 1)
    assert counts["tokenize"] == (6, 5, {"fewer tokens than one window": 1}, 0)
    # two of the short ones are filtered here; the one that has its windows to come by is not filtered twice
    fate = {"fills a window": 5, "left out by the filters": 2, "is_welcome": 2}
    assert counts["short"] == (13, 4, fate, 0)
    assert (stages["signatures"]["in"], stages["score"]["in"], stages["rank"]["documents"]) == (6 + 4, 5, 5)

    gone = {400, 450, 5, 25}
    words = "len(regexp_extract_all(text, '\\S+'))"
    found = rows(ladm, store, f"select role, {words} as words from selected join documents using (doc_id) order by all")
    assert [row["words"] for row in found] == [300, 350, 500, 550, 600, 15, 20, 30, 60]
    exported = store / "runs" / answer.record["run_id"] / "export" / "parquet" / "train-00000-of-00001.parquet"
    assert not gone & {len(text.split()) for text in pq.read_table(exported)["text"].to_pylist()}
    listed = f"select {words} as words, reason, similarity, twin_id, windows from dropped join documents using (doc_id)"
    nothing = {"similarity": None, "twin_id": None, "windows": None}
    assert rows(ladm, store, f"{listed} order by words") == [
        {"words": 5, "reason": "is_welcome", **nothing},
        {"words": 25, "reason": "is_welcome", **nothing},
        {"words": 400, "reason": "is_welcome: four hundred 'words'", **nothing},
    ]
    (set_aside,) = rows(ladm, store, "select stage, source, line, reason, excerpt from quarantine")
    assert (set_aside["stage"], set_aside["line"]) == ("filter", 2)
    assert set_aside["source"].endswith("poems.jsonl")
    assert set_aside["reason"] == "filter is_welcome: KeyError: 'lang'"
    assert set_aside["excerpt"]
    by_reason = rows(
        ladm, store, "select stage, dropped_reasons as r from stages where stage = 'filter' and dropped > 0"
    )
    assert [json.loads(row["r"]) for row in by_reason] == [{"is_welcome: four hundred 'words'": 1}]
    card = (exported.parents[1] / "README.md").read_text()
    assert "The filters dropped 3 documents before they were tokenized." in card
    assert "| is\\_welcome: four hundred 'words' | Letters | 1 |" in card

    again = ladm(*run_arguments(corpus, store, *settings)).record
    assert ran(again) == {}
    # without replay the exports take what the filters left
    long_only = ladm(*run_arguments(corpus, store, settings[0]))
    assert long_only.code == 0, long_only.err
    assert long_only.record["stages"]["export"]["in"] == 5


def test_a_filter_that_changes_is_asked_again_and_only_what_falls_otherwise_is_scored_again(
    tmp_path: Path, corpus: Corpus, ladm: Cli, mine: Path
) -> None:
    store = tmp_path / "store"
    without = ladm(*run_arguments(corpus, store)).record
    assert "filter" not in without["stages"]
    # a filter that drops nothing leaves the keys of all that follows as they are
    harmless = ladm(*run_arguments(corpus, store, "filters=[repetition]")).record
    assert ran(harmless) == {"filter": 2}
    keys = [
        {job["key"] for job in one["shards"] if job["stage"] not in ("filter", "card")} for one in (without, harmless)
    ]
    assert keys[0] == keys[1]

    asked = "filters=['my_filters:is_welcome']"
    first = ladm(*run_arguments(corpus, store, asked)).record
    assert ran(first) == {"filter": 2, "tokenize": 2, "score": 2, "measure": 2, "rank": 1, "export": 2}
    file = mine / "my_filters.py"
    file.write_text(f"{MINE}\n# the same, said otherwise\n")
    same = ladm(*run_arguments(corpus, store, asked)).record
    assert ran(same) == {"filter": 2}
    file.write_text(MINE.replace("words == 400", "words in (400, 500)"))
    os.utime(file, (1, 1))  # an older file, too
    other = ladm(*run_arguments(corpus, store, asked)).record
    assert ran(other) == {"filter": 2, "tokenize": 1, "score": 1, "measure": 1, "rank": 1, "export": 2}
    assert other["stages"]["filter"]["dropped"] == {"is_welcome: four hundred 'words'": 2}
    # another name: another reason, and nothing else
    named = ladm(*run_arguments(corpus, store, "filters=[{function: 'my_filters:is_welcome', name: mine}]")).record
    assert ran(named) == {"filter": 2}
    assert named["stages"]["filter"]["dropped"] == {"mine: four hundred 'words'": 2}


def test_a_filter_that_raises_on_every_document_is_told_of_at_once(
    tmp_path: Path, corpus: Corpus, ladm: Cli, mine: Path
) -> None:
    store = tmp_path / "store"
    answer = ladm(*run_arguments(corpus, store, "filters=['my_filters:is_broken']"))
    assert answer.code == 1
    told = [line for line in answer.err.splitlines() if "nothing is left of" in line]
    assert len(told) == 1
    assert "4 of 4 records are quarantined, the first for: filter is_broken: ValueError: no matter what" in told[0]
    assert "Traceback" not in answer.err
    assert answer.record["stages"]["filter"]["quarantined"] == 8
    assert answer.record["failures"][0]["error"].startswith("no document was left")

    silent = ladm(*run_arguments(corpus, store, "filters=['my_filters:says_nothing']", "max_quarantined=0.5"))
    assert silent.code == 1
    assert "says_nothing: TypeError: answered None, neither True or False nor one of them with a reason" in silent.err


def test_filters_like_those_of_datatrove(tmp_path: Path, corpus: Corpus, ladm: Cli, mine: Path) -> None:
    store = tmp_path / "store"
    asked = "filters=[{datatrove: like_datatrove.Longest, arguments: {words: 450}}]"
    first = ladm(*run_arguments(corpus, store, asked))
    assert first.code == 0, first.err
    assert first.record["stages"]["filter"]["dropped"] == {"Longest: long": 3}
    assert first.record["stages"]["rank"]["documents"] == 4
    assert ran(ladm(*run_arguments(corpus, store, asked)).record) == {}
    other = ladm(*run_arguments(corpus, store, asked.replace("450", "550"))).record
    assert other["stages"]["filter"]["dropped"] == {"Longest: long": 1}


def test_the_real_datatrove(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    pytest.importorskip("datatrove")
    pytest.importorskip("spacy")
    place = "datatrove.pipeline.filters"
    quality = f"{{datatrove: {place}.GopherQualityFilter, arguments: {{max_doc_words: 500, min_stop_words: null}}}}"
    repeated = f"{{datatrove: {place}.GopherRepetitionFilter}}"
    sampled = f"{{datatrove: {place}.SamplerFilter, arguments: {{rate: 0.9, seed: 1}}}}"
    answer = ladm(*run_arguments(corpus, tmp_path / "store", f"filters=[{quality}, {repeated}, {sampled}]"))
    assert answer.code == 0, answer.err
    assert answer.record["stages"]["filter"]["dropped"]["GopherQualityFilter: gopher_long_doc"] == 2
    assert answer.record["stages"]["filter"]["quarantined"] == 0


def test_another_version_of_a_filter_than_the_planned_one_is_refused(mine: Path) -> None:
    config = [FilterConfig(function="my_filters:is_welcome").key_config()]
    (planned,) = load_filters([FilterConfig(function="my_filters:is_welcome")])
    assert filters_of_job(config, [planned.version])[0].version == planned.version
    (mine / "my_filters.py").write_text(f"{MINE}\n# changed\n")
    with pytest.raises(ConfigError, match=r"filters\[0\]: is_welcome is not what it was when the run began"):
        filters_of_job(config, [planned.version])


def test_reasons_beyond_number_are_counted_together(mine: Path) -> None:
    (mine / "my_filters.py").write_text("def f(text, meta):\n    return False, text\n")
    sieve = Sieve(load_filters([FilterConfig(function="my_filters:f")]))
    documents = MOST_REASONS + 5
    columns: dict[str, list[Any]] = {name: [f"{number}" for number in range(documents)] for name in COLUMNS}
    columns |= {"line": [1] * documents, "meta": [None] * documents}
    assert sieve.keep(pa.RecordBatch.from_pydict(columns)).to_pylist() == [False] * documents
    assert sieve.dropped["f: other reasons"] == 5
    assert len(sieve.dropped) == MOST_REASONS + 1
    assert sum(sieve.dropped.values()) == documents


# -- the table of stages ---------------------------------------------------------------------------------------


def test_whatever_follows_the_filters_takes_what_they_left() -> None:
    names = [row.name for row in TABLE]
    for row in TABLE[names.index("filter") + 1 :]:
        for take in row.takes:
            if take.of == "length" and (row.name, take.role) != ("short", "long_enough"):
                assert take.rather == "filter", (row.name, take.role)
        assert "length" not in row.receives or row.receives[: row.receives.index("length")] == ("filter",)


KEYS = {
    "tokenize": "82b0c9417bc892c6ece124a6feb36497c3e8f19f1976207cb28bef69a6ad2075",
    "short": "c66480306f8a35edb01df1aef03d5a387bf5e2f3b9669548b6a379a50829bf4a",
    "signatures": "560b5ca2d6023f6c50fbf1ec50e062d77a891a9a3cd183cc2164c1cfa2f9c1af",
}
"""Stage → the key of the job below, as it was before there were filters."""
ROLES = {"tokenize": "documents", "short": "documents windows", "signatures": "documents short long_enough benchmarks"}


@pytest.mark.parametrize("stage", KEYS)
def test_keys_without_filters_are_what_they_were(stage: str) -> None:
    inputs = {role: [Shard(key=role, path=role, bytes=1, rows=1)] for role in ROLES[stage].split()}
    job = Job(stage=stage, label="x", store="s", config={"a": 1}, identity=["i"], inputs=inputs)
    assert STAGES[stage].key(job) == KEYS[stage]


def test_filters_are_loaded_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's import system forgets what it knows of folders for all threads: two that ask for it at once fail."""
    inside, together = [0], [0]

    def forget() -> None:
        inside[0] += 1
        together[0] = max(together[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1

    monkeypatch.setattr("importlib.invalidate_caches", forget)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(load_filters, [[]] * 16)) == [[]] * 16
    assert together == [1]
