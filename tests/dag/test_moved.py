"""A corpus that lies somewhere else than before: it is read again, and nothing after that is done again."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.ask.query import run_query
from ladm.flows.runs.read import known_files
from ladm.tasks.manifest import SourceFile
from ladm.tasks.reading.names import named, unsure
from ladm.tasks.reading.readers import SourceConfig
from ladm.tasks.reading.sources import list_sources
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]


def files(*names: str, size: int = 1) -> list[SourceFile]:
    """Files `root:name`, each of which has the part behind the colon as its name."""
    pairs = [name.split(":") for name in names]
    return [SourceFile(uri=f"{root}/{name}", size=size, version="1", name=name) for root, name in pairs]


def names(found: list[SourceFile]) -> list[str]:
    return [file.name for file in found]


def by_address(found: list[SourceFile], known: object) -> list[SourceFile]:
    """The names that ladm 0.1 gave: none."""
    return [one.replaced(name="") for one in found]


def done(record: dict[str, Any]) -> dict[str, int]:
    """Stage → the jobs that were run, of the stages that are not free."""
    return {stage: record["stages"][stage]["run"] for stage in ("length", "tokenize", "score", "measure")}


def sources(*entries: Any) -> str:
    return f"sources={json.dumps([{'domain': 'meta.pile_set_name', **entry} for entry in entries])}"


# -- names --------------------------------------------------------------------------------------------------------


def test_names_are_below_the_root_of_the_entry(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "web").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (data / "links").symlink_to("../elsewhere")
    for place in (data / "web" / "a.jsonl", data / "b.jsonl", tmp_path / "elsewhere" / "c.jsonl"):
        place.write_text("{}\n")
    below = {
        f"{data}": {"web/a.jsonl", "b.jsonl", "links/c.jsonl"},
        f"{data}/": {"web/a.jsonl", "b.jsonl", "links/c.jsonl"},
        f"{data}/**": {"web/a.jsonl", "b.jsonl", "links/c.jsonl"},
        f"{data}/*/*.jsonl": {"web/a.jsonl", "links/c.jsonl"},
        f"{data}/w*/a.jsonl": {"web/a.jsonl"},
        f"{tmp_path}/d*/b.jsonl": {"data/b.jsonl"},
        f"{data}/b.jsonl": {"b.jsonl"},
        f"{data}/web/../b.jsonl": {"b.jsonl"},
        f"file://{data}": {"web/a.jsonl", "b.jsonl", "links/c.jsonl"},
    }
    for uri, expected in below.items():
        assert {one.file.name for one in list_sources([SourceConfig(uri=uri)])} == expected, uri


def test_a_bucket_and_a_disk_give_the_same_names(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("web/a.jsonl", "b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
        memory.pipe(f"/moved/{name}", b"{}\n")
    for below in ("", "/", "/*.jsonl", "/web", "/web/a.jsonl", "/*/a.jsonl"):
        here, there = (
            [one.file.name for one in list_sources([SourceConfig(uri=f"{root}{below}")])]
            for root in (str(tmp_path), "memory://moved")
        )
        assert here == there, below


def test_two_files_of_one_name_are_told_apart_and_keep_their_names() -> None:
    first = named(files("/2023:x.jsonl", "/2024:x.jsonl", "/2024:y.jsonl", "/2025:x.jsonl"))
    assert names(first) == ["x.jsonl", "x.jsonl#2", "y.jsonl", "x.jsonl#3"]
    # another order, one fewer, one more: those that were there keep what they had
    again = named(files("/2025:x.jsonl", "/new:x.jsonl", "/2024:x.jsonl"), first)
    assert names(again) == ["x.jsonl#3", "x.jsonl", "x.jsonl#2"]
    # a file that is really called so
    assert names(named(files("/a:x#2", "/b:x", "/c:x"))) == ["x#2", "x", "x#3"]


def test_any_set_of_files_gets_as_many_names() -> None:
    for some in itertools.product(("/a:x", "/b:x", "/c:x#2", "/d:y/x", "/e:x#2#2"), repeat=4):
        if len(set(some)) == 4:
            found = named(files(*some), files("/z:x", "/b:x#2"))
            assert len(set(names(found))) == 4
            assert names(named(files(*some), found)) == names(found)


def test_a_file_keeps_the_name_of_one_that_is_gone_if_it_can_be_no_other() -> None:
    old = [  # of ladm 0.1: named by their addresses
        SourceFile(uri="/mnt/a/books/x.jsonl", size=1, version="1"),
        SourceFile(uri="/mnt/a/web/x.jsonl", size=1, version="1"),
        SourceFile(uri="/mnt/a/web/y.jsonl", size=7, version="1"),
    ]
    moved = named(files("/data:books/x.jsonl", "/data:web/x.jsonl", "/data:web/y.jsonl"), old)
    assert names(moved) == ["/mnt/a/books/x.jsonl", "/mnt/a/web/x.jsonl", "web/y.jsonl"]  # y has another size
    alike = named(files("/data/other:x.jsonl"), old)
    assert names(alike) == ["x.jsonl"]  # it may be either
    assert [one.uri for one in unsure(alike, old)] == ["/data/other/x.jsonl"]
    assert unsure(moved, old) == []
    there = named([*files("/data:web/x.jsonl"), old[1]], old)
    assert names(there) == ["web/x.jsonl", "/mnt/a/web/x.jsonl"]  # a copy, and the original is still there


# -- runs ---------------------------------------------------------------------------------------------------------


def test_a_moved_corpus_is_not_scored_again(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    """By another root, another kind of entry, and after a run that did not go all the way."""
    store = tmp_path / "store"
    first = ladm(*run_arguments(corpus, store)).record
    before = run_query(str(store), "select doc_id, line, text from documents order by all").to_pylist()
    moved = tmp_path / "mnt" / "corpus"
    moved.parent.mkdir()
    corpus.folder.rename(moved)
    answer = ladm(*run_arguments(corpus, store, sources({"uri": str(moved)})))
    assert answer.code == 0, answer.err
    assert done(answer.record) == dict.fromkeys(("length", "tokenize", "score", "measure"), 0)
    assert answer.record["windows_scored"] == 0
    refresh = answer.record["refresh"]
    assert (refresh["unchanged"]["files"], refresh["added"]["files"], refresh["removed"]["files"]) == (2, 0, 0)
    assert run_query(str(store), "select doc_id, line, text from documents order by all").to_pylist() == before
    # what people read leads to where the files lie now
    for row in run_query(str(store), "select distinct source from documents").to_pylist():
        assert Path(row["source"]).parent == moved
    (exported,) = (store / "runs" / answer.record["run_id"] / "export" / "parquet").glob("*.parquet")
    assert {Path(uri).parent for uri in pq.read_table(exported)["source"].to_pylist()} == {moved}
    earlier = run_query(str(store), "select distinct source from documents", first["run_id"]).to_pylist()
    assert {Path(row["source"]).parent for row in earlier} == {corpus.folder}
    # by a glob and by single files, and nothing is lost that max_removed would count
    single = [{"uri": str(file)} for file in sorted(moved.glob("*.jsonl"))]
    for entries in ([{"uri": f"{moved}/*.jsonl"}], single, single[::-1]):
        again = ladm(*run_arguments(corpus, store, sources(*entries), "max_removed=0")).record
        assert again["status"] == "completed"
        assert done(again) == dict.fromkeys(("length", "tokenize", "score", "measure"), 0)


def test_a_corpus_moved_after_a_killed_run_is_not_worked_on_again(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    """No record of a run tells the names: they follow from the listing alone."""
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store), "--until", "tokenize").code == 0
    shutil.rmtree(store / "runs")
    corpus.folder.rename(tmp_path / "B")
    record = ladm(*run_arguments(corpus, store, sources({"uri": str(tmp_path / "B")})), "--until", "tokenize").record
    assert (record["stages"]["length"]["run"], record["stages"]["tokenize"]["run"]) == (0, 0)


def test_copies_in_two_entries_are_two_documents_and_move_together(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    shutil.copytree(corpus.folder, other)
    both = [{"uri": str(corpus.folder)}, {"uri": str(other), "domain": {"const": "Copies"}}]
    first = ladm(*run_arguments(corpus, store, sources(*both), "select.budget_tokens=null"))
    assert first.code == 0, first.err
    count = run_query(str(store), "select count(*) n, count(distinct doc_id) d from documents").to_pylist()
    assert count == [{"n": 18, "d": 18}]
    placed = run_query(str(store), "select source, count(*) n from documents group by 1 order by 1").to_pylist()
    assert {Path(row["source"]).parent for row in placed} == {corpus.folder, other}
    for folder in (corpus.folder, other):
        folder.rename(tmp_path / f"moved-{folder.name}")
    both = [{**one, "uri": f"{tmp_path}/moved-{Path(one['uri']).name}"} for one in both]
    record = ladm(*run_arguments(corpus, store, sources(*both), "select.budget_tokens=null")).record
    assert done(record) == dict.fromkeys(("length", "tokenize", "score", "measure"), 0)


def test_a_store_of_ladm_0_1_keeps_its_work(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its documents knew their files by address: in place, changed, and moved."""
    store = tmp_path / "store"
    with monkeypatch.context() as old:
        old.setattr("ladm.flows.dag.preflight.named", by_address)
        first = ladm(*run_arguments(corpus, store)).record
    sources_table = store / "runs" / first["run_id"] / "sources.parquet"
    assert set(pq.read_table(sources_table)["name"].to_pylist()) == {""}
    in_place = ladm(*run_arguments(corpus, store)).record
    assert {stage: one["run"] for stage, one in in_place["stages"].items()} == dict.fromkeys(in_place["stages"], 0)
    with (corpus.folder / "poems.jsonl").open("a") as file:
        file.write(json.dumps({"text": "x", "meta": {"pile_set_name": "Poems"}}) + "\n")
    changed = ladm(*run_arguments(corpus, store)).record
    assert done(changed) == {"length": 1, "tokenize": 1, "score": 1, "measure": 1}
    corpus.folder.rename(tmp_path / "B")
    moved = ladm(*run_arguments(corpus, store, sources({"uri": str(tmp_path / "B")}))).record
    assert done(moved) == dict.fromkeys(("length", "tokenize", "score", "measure"), 0)
    assert {Path(uri).parent for (uri,) in _sources(store)} == {tmp_path / "B"}


def test_what_cannot_be_told_apart_is_said_before_it_is_scored_again(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    shutil.copytree(corpus.folder, other)
    both = sources({"uri": str(corpus.folder)}, {"uri": str(other)})
    with monkeypatch.context() as old:
        old.setattr("ladm.flows.dag.preflight.named", by_address)
        assert ladm(*run_arguments(corpus, store, both)).code == 0
    corpus.folder.rename(tmp_path / "A")
    other.rename(tmp_path / "B")
    answer = ladm(*run_arguments(corpus, store, sources({"uri": f"{tmp_path}/A"}, {"uri": f"{tmp_path}/B"})))
    assert answer.code == 0
    said = "sources: 4 files, the first "
    assert said in answer.err
    assert answer.err.index(said) < answer.err.index("ingest")
    assert answer.record["windows_scored"] == 14
    once = ladm(*run_arguments(corpus, store, sources({"uri": f"{tmp_path}/A"}, {"uri": f"{tmp_path}/B"})))
    assert once.record["windows_scored"] == 0
    assert said not in once.err


def _sources(store: Path) -> list[tuple[str]]:
    return duckdb.from_arrow(run_query(str(store), "select distinct source from documents")).fetchall()


def test_records_that_cannot_be_read_are_passed_over(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    run_id = ladm(*run_arguments(corpus, store), "--until", "ingest").record["run_id"]
    uris = {str(file) for file in corpus.folder.iterdir()}
    assert {file.name for file in known_files(Store(str(store)), uris)} == {"letters.jsonl", "poems.jsonl"}
    (store / "runs" / run_id / "sources.parquet").write_bytes(b"PAR1 no more")
    assert known_files(Store(str(store)), uris) == []
    (store / "runs" / run_id / "run.json").write_bytes(b"[]")
    assert known_files(Store(str(store)), uris) == []
