"""`ladm init` on data with something beside it, or in it: each document in a sensible domain, and no file lost."""

from __future__ import annotations

import errno
import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Answer, sentence

from ladm.flows.config import load_config
from ladm.flows.init import sample
from ladm.tasks.reading.readers import read_records
from ladm.tasks.reading.records import Record, UnreadableFile
from ladm.tasks.reading.sources import list_sources

Cli = Callable[..., Answer]


def text(seed: int) -> str:
    return sentence(random.Random(seed), 80)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def ingested(place: Path, tmp_path: Path) -> tuple[Counter[str], dict[str, str]]:
    """Domain → documents, and file → why it is unusable, by the configuration that a place is given."""
    domains: Counter[str] = Counter()
    unusable: dict[str, str] = {}
    for listed in list_sources(load_config(str(place), store=str(tmp_path / "store")).sources):
        path = Path(listed.file.uri)
        try:
            with path.open("rb") as file:
                for record in read_records(file, path.name, listed.config):
                    if isinstance(record, Record):
                        domains[record.domain] += 1
                    else:
                        unusable[path.name] = record.reason
        except UnreadableFile as damage:
            unusable[path.name] = damage.reason
    return domains, unusable


def test_descriptions_in_json_beside_data_are_no_data(tmp_path: Path) -> None:
    place = tmp_path / "set"
    table = pa.table({"text": [text(number) for number in range(4)]})
    (place / "data").mkdir(parents=True)
    pq.write_table(table, place / "data" / "train-00000-of-00001.parquet")
    write(place / "README.md", text(5))
    write(place / "LICENSE", text(6))
    write(place / "dataset_infos.json", json.dumps({"default": {"description": text(7)}}))
    write(place / "numbers.json", json.dumps({"about": text(8)}))
    assert ingested(place, tmp_path) == ({"set": 4}, {})


def test_json_files_of_a_record_each_are_data(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "pages" / f"{number}.json", json.dumps({"text": text(number)}))
    assert ingested(tmp_path / "pages", tmp_path) == ({"pages": 3}, {})


def test_settings_in_json_are_no_part_of_a_source_tree(tmp_path: Path) -> None:
    write(tmp_path / "project" / "main.c", text(1))
    write(tmp_path / "project" / "keys.json", json.dumps({"a": text(2)}))
    assert ingested(tmp_path / "project", tmp_path) == ({"C": 1}, {})


def test_damaged_and_empty_files_are_read_with_the_others_and_named_by_the_run(tmp_path: Path, ladm: Cli) -> None:
    place = tmp_path / "some"
    for name in ("0.jsonl.gz", "1.jsonl.gz"):
        records = [{"text": text(number), "source": "ab"[number % 2]} for number in range(4)]
        write(place / name, gzip.compress(lines(records)))
    write(place / "odd.jsonl.gz", gzip.compress(lines([{"text": text(1)}] * 50))[:60])
    write(place / "empty.jsonl.gz", b"")
    found, quarantined = ingested(place, tmp_path)
    assert found == {"a": 4, "b": 4}
    assert set(quarantined) == {"odd.jsonl.gz", "empty.jsonl.gz"}
    (source,) = load_config(str(place), store=str(tmp_path / "store")).sources
    assert source.only is None  # files that come later are read, too
    answer = ladm("init", place, "--out", tmp_path / "config.yaml")
    assert "2 hold no record or cannot be read, which a run will name" in answer.out


def test_a_damaged_table_beside_whole_ones_is_read_with_them(tmp_path: Path) -> None:
    place = tmp_path / "tables"
    write(place / "a.parquet", b"no table")
    pq.write_table(pa.table({"text": [text(1)] * 4, "source": ["x", "y"] * 2}), place / "b.parquet")
    found, quarantined = ingested(place, tmp_path)
    assert (found, set(quarantined)) == ({"x": 2, "y": 2}, {"a.parquet"})


@pytest.mark.parametrize("bad", [None, "{'a': 1}", "{", ""])
def test_a_domain_inside_json_that_is_text_is_found(tmp_path: Path, bad: str | None) -> None:
    """RedPajama's form; a record whose text is no JSON has no domain, and is not lost."""
    records = [
        {"text": text(one), "meta": json.dumps({"url": f"u{one}", "set_name": "ab"[one % 2]})} for one in range(40)
    ]
    records += [{"text": text(40), "meta": bad}]
    write(tmp_path / "pyjama" / "a.jsonl", lines(records))
    assert ingested(tmp_path / "pyjama", tmp_path) == ({"a": 20, "b": 20, "unknown": 1}, {})


def test_the_value_of_a_partition_is_the_domain(tmp_path: Path) -> None:
    for language in ("en", "de"):
        write(tmp_path / "parts" / f"language={language}" / "part-0.jsonl", lines([{"text": text(1)}] * 2))
    assert ingested(tmp_path / "parts", tmp_path) == ({"en": 2, "de": 2}, {})


@pytest.mark.parametrize(
    "names", [("2401.00001", "2401.00002", "1912.4"), [f"paper-{letter}" for letter in "abcdefghij"]]
)
def test_a_folder_for_each_document_is_no_domain(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write(tmp_path / "papers" / name / "main.tex", text(1))
    assert ingested(tmp_path / "papers", tmp_path) == ({"papers": len(names)}, {})


def test_a_folder_for_each_language_is_a_domain(tmp_path: Path) -> None:
    for name in ("en", "de", "fr", "es", "it"):
        write(tmp_path / "languages" / name / "all.txt", text(1))
    assert ingested(tmp_path / "languages", tmp_path)[0] == dict.fromkeys(("en", "de", "fr", "es", "it"), 1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (json.dumps({"text": text(1)}, indent=1).encode(), "JSON spread over several lines"),
        (json.dumps({"text": text(1)}).encode("utf-16"), "UTF-16 text, not UTF-8"),
        (lines([{"messages": [{"content": text(1)}], "id": 7}]), "no field with a text (there are: messages, id)"),
        (lines([{"messages": [{"content": text(1)}], "id": 7}])[:30], "no record"),
    ],
)
def test_what_is_not_read_is_named_with_the_reason(tmp_path: Path, ladm: Cli, content: bytes, why: str) -> None:
    write(tmp_path / "data" / "a.jsonl", content)
    answer = ladm("init", tmp_path / "data", "--out", tmp_path / "config.yaml")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert why in answer.err


@pytest.mark.parametrize("place", ["", " "])
def test_no_name_is_refused(tmp_path: Path, ladm: Cli, place: str) -> None:
    answer = ladm("init", place, "--out", tmp_path / "config.yaml")
    assert (answer.code, answer.err) == (2, "ladm: PATH: no name; give a folder, a file, a glob or a URL\n")


def test_a_home_of_nobody_is_told_in_a_line(ladm: Cli) -> None:
    answer = ladm("run", "~nobody9/config.yaml")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "give an existing file" in answer.err


def test_a_file_that_cannot_be_reached_is_not_called_damaged(
    tmp_path: Path, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data" / "a.jsonl", lines([{"text": text(1)}]))

    def refuse(uri: str) -> BinaryIO:
        raise PermissionError(errno.EACCES, "Permission denied", uri)

    monkeypatch.setattr(sample, "opened", refuse)
    answer = ladm("init", tmp_path / "data", "--out", tmp_path / "config.yaml")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "1 cannot be read (Permission denied): .jsonl" in answer.err
