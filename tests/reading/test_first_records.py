"""Fields that a source names and that none of its first records has are told before any work."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import Answer, Corpus, run_arguments

from ladm.tasks.errors import SourceError
from ladm.tasks.reading.first_records import check_first_records, look_at
from ladm.tasks.reading.readers import SourceConfig
from ladm.tasks.reading.sources import list_sources

Cli = Callable[..., Answer]
RECORDS = [
    {"content": f"a text of some words {number}", "id": number, "meta": {"lang": "en", "topic": "man", "tags": ["a"]}}
    for number in range(3)
]


def as_jsonl(records: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(one)}\n" for one in records).encode()


def write(folder: Path, form: str, records: list[dict[str, Any]], name: str = "a") -> Path:
    path = folder / f"{name}.{form}"
    table = pa.Table.from_pylist(records)
    match form:
        case "jsonl":
            path.write_bytes(as_jsonl(records))
        case "jsonl.gz":
            path.write_bytes(gzip.compress(as_jsonl(records)))
        case "jsonl.zst":
            path.write_bytes(zstandard.compress(as_jsonl(records)))
        case "parquet":
            pq.write_table(table, path)
        case "arrow":
            with pa.ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table)
        case "arrows":
            with pa.ipc.new_stream(str(path), table.schema) as writer:
                writer.write_table(table)
    return path


FORMS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow", "arrows")


def check(*entries: SourceConfig) -> None:
    check_first_records(list_sources(entries), entries)


def refused(*entries: SourceConfig) -> str:
    with pytest.raises(SourceError) as told:
        check(*entries)
    line = str(told.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("form", FORMS)
def test_a_misspelt_field_is_refused_with_the_nearest(tmp_path: Path, form: str) -> None:
    uri = str(write(tmp_path, form, RECORDS))
    check(SourceConfig(uri=uri, text="content", domain="meta.lang"))
    check(SourceConfig(uri=uri, text="content"))  # the default domain need not be there
    for text in ("contents", "Content", "txt", "meta.langs"):
        near = "meta.lang" if text == "meta.langs" else "content"
        line = refused(SourceConfig(uri=uri, text=text))
        assert line.startswith(f"sources[0].text: {text!r} is in none of "), line
        assert f"did you mean {near!r}?" in line
        assert "There are: content, id, meta, meta.lang, meta.topic, meta.tags" in line
    line = refused(SourceConfig(uri=uri))  # `text` itself is the default
    assert "sources[0].text: 'text' is in none of" in line
    assert "did you mean 'content'?" in line
    for domain, near in (("meta.lnag", "meta.lang"), ("lang", "meta.lang"), ("META.TOPIC", "meta.topic")):
        line = refused(SourceConfig(uri=uri, text="content", domain=domain))
        assert line.startswith(f"sources[0].domain: {domain!r} is in none of "), line
        assert f"did you mean {near!r}?" in line


@pytest.mark.parametrize("form", FORMS)
def test_a_field_of_the_wrong_kind_is_refused(tmp_path: Path, form: str) -> None:
    uri = str(write(tmp_path, form, RECORDS))
    assert "'meta' is an object in" in refused(SourceConfig(uri=uri, text="meta"))
    assert "'id' is a number in" in refused(SourceConfig(uri=uri, text="id"))
    assert "'meta' is an object in" in refused(SourceConfig(uri=uri, text="content", domain="meta"))
    assert "'meta.tags' is an array in" in refused(SourceConfig(uri=uri, text="content", domain="meta.tags"))
    check(SourceConfig(uri=uri, text="content", domain="id"))


@pytest.mark.parametrize("form", FORMS)
def test_a_name_meant_as_a_constant_is_recognised(tmp_path: Path, form: str) -> None:
    uri = str(write(tmp_path, form, RECORDS))
    for name in ("man", "Books", "web pages"):
        line = refused(SourceConfig(uri=uri, text="content", domain=name))
        assert f"for one domain for all records write domain: {{const: {name}}}" in line
    check(SourceConfig.model_validate({"uri": uri, "text": "content", "domain": {"const": "man"}}))


def test_texts_have_no_fields(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text")
    check(SourceConfig(uri=str(tmp_path)))
    check(SourceConfig(uri=str(tmp_path), text="whatever"))
    line = refused(SourceConfig(uri=str(tmp_path), domain="man"))
    assert line == (
        "sources[0].domain: text files have no field 'man'; for one domain for all records write domain: {const: man}"
    )
    write(tmp_path, "jsonl", RECORDS)
    check(SourceConfig(uri=str(tmp_path), text="content", domain="meta.lang"))
    check(SourceConfig(uri=str(tmp_path), text="contents"))  # the text file is one document all the same


def test_one_record_that_has_it_is_enough(tmp_path: Path) -> None:
    for form in ("jsonl", "parquet"):
        folder = tmp_path / form
        folder.mkdir()
        for number in range(12):
            write(folder, form, [{"other": "x", "n": number}], f"{number:02}")
        write(folder, form, [{"text": "x", "topic": None}], "99")  # the last one
        check(SourceConfig(uri=str(folder), domain="topic"))
    few = write(tmp_path, "jsonl", [*({"other": 1} for _ in range(100)), {"text": None, "topic": "x"}])
    check(SourceConfig(uri=str(few), domain="topic"))


def test_what_tells_nothing_is_left_to_ingestion(tmp_path: Path) -> None:
    hostile = {
        "empty.jsonl": b"",
        "blank.jsonl": b"\n\n",
        "array.jsonl": b'[\n{"x": 1}\n]',
        "numbers.jsonl": b"1\n2\n",
        "broken.jsonl": b'{"x": \n',
        "cut.jsonl.gz": gzip.compress(as_jsonl(RECORDS))[:30],
        "no.parquet": b"PAR1 no more",
        "no.arrow": b"ARROW1\0\0",
        "wide.jsonl": "ÿþ{}".encode("utf-16"),
        "unknown.pdf": b"%PDF",
        "long.jsonl": b'{"x": "' + b"y" * 5_000_000 + b'"}\n',
    }
    for name, content in hostile.items():
        (tmp_path / name).write_bytes(content)
        check(SourceConfig(uri=str(tmp_path / name), domain="topic"))
    check(SourceConfig(uri=str(tmp_path), domain="topic"))
    (tmp_path / "last.jsonl").write_bytes(as_jsonl(RECORDS))
    assert "did you mean 'meta.topic'?" in refused(SourceConfig(uri=str(tmp_path), text="content", domain="topics"))


def test_maps_dots_and_dictionaries_are_looked_into(tmp_path: Path) -> None:
    table = pa.table(
        {
            "body.text": pa.array(["x"]),
            "labels": pa.array([[("topic", "a")]], pa.map_(pa.string(), pa.string())),
            "kind": pa.array(["a"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    for domain in ("labels.topic", "kind", "body.text"):
        check(SourceConfig(uri=str(tmp_path), text="body.text", domain=domain))
    assert "'labels.x.y'" not in refused(SourceConfig(uri=str(tmp_path), text="body.txt"))


def test_little_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many files and large ones, here on a stand-in for a bucket."""
    memory = fsspec.filesystem("memory")
    for number in range(40):
        memory.pipe(f"/first/{number:02}.jsonl", as_jsonl([{"content": "x" * 10_000}] * 2_000))
    read = 0
    kept = memory.open("/first/00.jsonl").__class__.read

    def counted(self: Any, *asked: Any) -> Any:
        nonlocal read
        got = kept(self, *asked)
        read += len(got)
        return got

    monkeypatch.setattr(memory.open("/first/00.jsonl").__class__, "read", counted)
    source = SourceConfig(uri="memory://first")
    assert "did you mean 'content'?" in refused(source)
    first = look_at([one.file for one in list_sources([source])], source)
    assert (first.files, first.records) == (5, 1000)
    assert read < 2 * 5 * 5_000_000


def test_the_run_is_refused_before_any_work(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    misspelt = f"sources=[{{uri: {corpus.folder}, text: txet}}]"
    answer = ladm(*run_arguments(corpus, tmp_path / "store", misspelt))
    assert answer.code == 2
    assert "sources[0].text: 'txet' is in none of the first 9 records; did you mean 'text'? There are: text, meta" in (
        answer.err
    )
    assert not (tmp_path / "store" / "runs").exists()
    second = f"sources=[{corpus.folder / 'letters.jsonl'}, {{uri: {corpus.folder}/p*, domain: man}}]"
    answer = ladm(*run_arguments(corpus, tmp_path / "store", second))
    assert answer.code == 2
    assert "sources[1].domain: 'man' is in none of the first 4 records" in answer.err
    assert "{const: man}" in answer.err


def test_a_field_of_an_expression_has_its_case(tmp_path: Path) -> None:
    """An expression reads fields by their names: in another case they would be null in every record."""
    uri = str(write(tmp_path, "jsonl", [{"text": "a", "Meta": {"x": "b"}}]))
    line = refused(SourceConfig(uri=uri, domain="lower(meta.x)"))
    assert line.startswith("sources[0].domain: 'meta' is in none of the first record; did you mean 'Meta'?"), line
    check(SourceConfig(uri=uri, domain="lower(Meta.x)"))
