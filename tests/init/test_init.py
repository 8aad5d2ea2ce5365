"""`ladm init` on data of many forms: what it writes runs as it stands, and every document has a sensible domain."""

from __future__ import annotations

import functools
import http.server
import json
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from conftest import Answer, sentence

import ladm as package
from ladm.flows.config import load_config
from ladm.tasks.reading.sources import list_sources

Cli = Callable[..., Answer]
LONG, SHORT = 1200, 60
"""Words: a text of the first fills a window of 1,024 tokens of the tiny model."""


def text(seed: int, words: int = LONG) -> str:
    return sentence(random.Random(seed), words)


def folder_of_texts(place: Path) -> dict[str, int]:
    """Nested folders, of which the first below the place is the domain."""
    for number, name in enumerate(("novels/a.txt", "novels/old/b.txt", "novels/old/a.txt", "letters/c.txt", "d.txt")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text(number))
    (place / "letters" / "short.txt").write_text(text(9, SHORT))
    (place / "letters" / "cover.png").write_bytes(b"\x89PNG\0\0")
    return {"novels": 3, "letters": 2, place.name: 1}


def pile(place: Path) -> dict[str, int]:
    """The Pile's form."""
    place.mkdir(parents=True)
    for part in range(2):
        lines = [
            json.dumps({"text": text(10 * part + number), "meta": {"pile_set_name": name}})
            for number, name in enumerate(("Books3", "Github", "Books3", "ArXiv"))
        ]
        (place / f"{part:02d}.jsonl.zst").write_bytes(zstandard.compress("\n".join(lines).encode()))
    return {"Books3": 4, "Github": 2, "ArXiv": 2}


def fineweb(place: Path) -> dict[str, int]:
    """FineWeb's form: no field says of a domain, and the language is what texts have in common."""
    (place / "data" / "CC-MAIN-2024-10").mkdir(parents=True)
    rows = [
        {
            "text": text(number),
            "id": f"<urn:uuid:{number:032x}>",
            "dump": "CC-MAIN-2024-10",
            "url": f"https://example.org/{number}",
            "date": f"2024-03-0{number % 9 + 1}T00:00:00Z",
            "file_path": f"s3://commoncrawl/crawl-data/{number}.warc.gz",
            "language": "en" if number % 3 else "de",
            "language_score": 0.9 + number / 1000,
            "token_count": 1500 + number,
        }
        for number in range(9)
    ]
    for part in range(3):
        table = pa.Table.from_pylist(rows[3 * part : 3 * part + 3])
        pq.write_table(table, place / "data" / "CC-MAIN-2024-10" / f"000_{part:05d}.parquet")
    return {"en": 6, "de": 3}


def saved_to_disk(place: Path) -> dict[str, int]:
    """What `DatasetDict.save_to_disk` writes."""
    for split, count in (("train", 4), ("test", 2)):
        folder = place / split
        folder.mkdir(parents=True)
        table = pa.table(
            {"content": [text(hash(split) % 97 + one) for one in range(count)], "stars": list(range(count))}
        )
        with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
            writer.write_table(table)
        (folder / "dataset_info.json").write_text("{}")
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (place / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return {place.name: 6}


def source_tree(place: Path) -> dict[str, int]:
    """A project: code in two languages, documents, and what is no text."""
    files = {
        "src/main.c": text(1),
        "src/main.h": text(2),
        "tool/build.py": text(3),
        "tool/deep/er/again.py": text(4),
        "README.md": text(5),
        "docs/guide.md": text(6),
        ".git/hooks/commit.py": text(7),
        ".venv/lib/module.py": text(8),
    }
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content)
    (place / "src" / "main.o").write_bytes(b"\x7fELF\0\0\xff")
    (place / "logo.png").write_bytes(b"\x89PNG\0\xff")
    (place / "package.json").write_text('{\n  "name": "project"\n}\n')
    (place / "Makefile").write_text("all:\n\tcc main.c\n")
    return {"C": 2, "Python": 2, "Markdown": 2}


FORMS: list[Callable[[Path], dict[str, int]]] = [folder_of_texts, pile, fineweb, saved_to_disk, source_tree]


def run_of(config: Path, model: Path, store: Path, *more: str) -> package.Run:
    # for the tiny model no calibration is shipped, and to make one takes longer than all else
    changes: dict[str, Any] = {"scorer__model": str(model), "scorer__layers": "all", "store": str(store)}
    return package.run(config, progress=False, **changes, **dict(one.split("=", 1) for one in more))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_what_it_writes_runs_as_it_stands(
    tmp_path: Path, ladm: Cli, tiny_model: Path, form: Callable[[Path], dict[str, int]]
) -> None:
    place, config = tmp_path / "corpus", tmp_path / "config.yaml"
    expected = form(place)
    answer = ladm("init", place, "--out", config, "--store", tmp_path / "store")
    assert answer.code == 0, answer.err
    assert f"written: {config}" in answer.out
    assert f"ladm run {config}" in answer.out
    run = run_of(config, tiny_model, tmp_path / "store")
    documents = run.documents().to_pylist()
    assert Counter(one["domain"] for one in documents) == expected
    assert run.quarantine().to_pylist() == []
    long = sum(len(one["text"].split()) == LONG for one in documents)
    assert run.record["stages"]["rank"]["documents"] == long
    assert run.record["stages"]["rank"]["selected_documents"] > 0
    # and without a configuration, the same
    same = load_config(str(place), store=str(tmp_path / "store"))
    assert same == load_config(str(config))


def test_it_tells_what_was_found_and_assumed(tmp_path: Path, ladm: Cli) -> None:
    place = tmp_path / "project"
    source_tree(place)
    answer = ladm("init", place, "--out", tmp_path / "config.yaml")
    assert "domain Python" in answer.out
    assert "left out: 1 file, no known format: .png" in answer.out
    assert "scripts: Latin 100%" in answer.out
    lines = [line.split() for line in answer.out.splitlines() if line.strip()[:1].isdigit()]
    assert [line[0] for line in lines] == [f"{2**power:,}" for power in range(10, 18)]
    assert [line[0] for line in lines if "shipped," in line] == ["1,024", "2,048", "4,096", "8,192"]
    written = (tmp_path / "config.yaml").read_text()
    assert written.count("#") > 5
    assert yaml.safe_load(written)["window"]["length"] == 1024


def test_it_replaces_no_file_unless_told_so(tmp_path: Path, ladm: Cli) -> None:
    folder_of_texts(tmp_path / "corpus")
    config = tmp_path / "config.yaml"
    config.write_text("mine")
    refused = ladm("init", tmp_path / "corpus", "--out", config)
    assert refused.code == 2
    assert "--force" in refused.err
    assert config.read_text() == "mine"
    assert ladm("init", tmp_path / "corpus", "--out", config, "--force").code == 0
    assert "sources:" in config.read_text()


def test_run_on_data_without_a_configuration_says_where_to_go_on(tmp_path: Path, ladm: Cli) -> None:
    pile(tmp_path / "corpus")
    answer = ladm("run", tmp_path / "corpus", "--store", tmp_path / "store", "--until", "ingest", "--json")
    assert answer.code == 0, answer.err
    assert answer.record["stages"]["ingest"]["kept"] == 8
    assert f"`ladm init {tmp_path / 'corpus'}` writes this one down" in answer.err
    assert "domain in `meta.pile_set_name`" in answer.err


def jsonl(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def domains(place: str, tmp_path: Path) -> Counter[str]:
    """Domain → documents, by the configuration that a place is given."""
    run = package.run(load_config(place, store=str(tmp_path / "store")), until="ingest", progress=False)
    return Counter(one["domain"] for one in run.sql("select domain from documents").to_pylist())


def test_records_without_a_domain_go_by_their_folder_or_file(tmp_path: Path) -> None:
    some = [{"body": text(number), "id": number} for number in range(3)]
    for name in ("books/part-000.jsonl", "books/part-001.jsonl", "code/part-000.jsonl"):
        jsonl(tmp_path / "folders" / name, some)
    assert domains(str(tmp_path / "folders"), tmp_path) == {"books": 6, "code": 3}
    for name in ("books-00.jsonl", "books-01.jsonl", "code.jsonl"):
        jsonl(tmp_path / "files" / name, some)
    assert domains(str(tmp_path / "files"), tmp_path) == {"books": 6, "code": 3}
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"):
        jsonl(tmp_path / "one" / name, some)
    assert domains(str(tmp_path / "one"), tmp_path) == {"one": 6}
    assert domains(str(tmp_path / "files" / "code.jsonl"), tmp_path) == {"code": 3}
    assert domains(f"{tmp_path}/files/*.jsonl", tmp_path) == {"books": 6, "code": 3}


def test_files_of_several_forms_are_read_each_in_its_own_way(tmp_path: Path) -> None:
    place = tmp_path / "mixed"
    jsonl(place / "a.jsonl", [{"text": text(1), "category": name} for name in ("x", "y", "x", "y")])
    jsonl(place / "other" / "b.jsonl", [{"raw_content": text(2), "nested": {"source": "s"}} for _ in range(4)])
    pq.write_table(pa.table({"content": [text(3)] * 2, "lang": ["fr", "fr"]}), place / "c.PARQUET")
    (place / "note.txt").write_text(text(4))
    (place / "odd [1].txt").write_text(text(5))
    found = domains(str(place), tmp_path)
    assert found == {"x": 2, "y": 2, "s": 4, "fr": 2, "mixed": 2}


def test_what_is_different_in_every_record_is_no_domain(tmp_path: Path) -> None:
    records = [{"text": text(number), "source": f"page {number}", "type": "page"} for number in range(6)]
    jsonl(tmp_path / "pages" / "a.jsonl", records)
    assert domains(str(tmp_path / "pages"), tmp_path) == {"page": 6}


@pytest.mark.parametrize("name", ["red_pajama_subset", "Source-Corpus", "meta.web_language"])
def test_a_longer_name_that_ends_like_a_domain_is_one(tmp_path: Path, name: str) -> None:
    records: list[dict[str, Any]] = []
    for number in range(6):
        record: dict[str, Any] = {"text": text(number)}
        above, _, last = name.rpartition(".")
        (record.setdefault(above, {}) if above else record)[last] = f"kind {number % 2}"
        records.append(record)
    jsonl(tmp_path / "pages" / "a.jsonl", records)
    assert domains(str(tmp_path / "pages"), tmp_path) == {"kind 0": 3, "kind 1": 3}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", "id,text\n1,hello there\n", "a table, which would have to be Parquet or JSON lines: .csv"),
        (
            "a.json",
            json.dumps([{"text": text(1)}] * 3),
            "a JSON array, not one object a line: convert it with `jq -c '.[]'`",
        ),
    ],
)
def test_what_is_no_text_is_named_with_what_it_should_be(
    tmp_path: Path, ladm: Cli, name: str, content: str, why: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(content)
    answer = ladm("init", tmp_path / "data", "--out", tmp_path / "config.yaml")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert why in answer.err


@pytest.mark.parametrize("content", [None, b"\0\1\2"])
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, ladm: Cli, content: bytes | None) -> None:
    place = tmp_path / "nothing"
    place.mkdir()
    if content:
        (place / "a.bin").write_bytes(content)
    answer = ladm("init", place, "--out", tmp_path / "config.yaml")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("ladm: PATH: ")
    assert not (tmp_path / "config.yaml").exists()


def test_a_repository_of_git_is_read_without_its_own_files(tmp_path: Path) -> None:
    place = tmp_path / "project"
    source_tree(place)
    subprocess.run(["git", "init", "-q", place], check=True)
    found = load_config(str(place), store=str(tmp_path / "store"))
    assert {source.uri for source in found.sources} == {str(place)}
    assert domains(str(place), tmp_path) == {"C": 2, "Python": 2, "Markdown": 2}


def test_fields_that_tell_files_apart_come_before_those_that_tell_records_apart(tmp_path: Path) -> None:
    """Each file has one set name and several kinds; a note beside them, and settings, are no data."""
    for name in ("Books", "Code"):
        records = [{"text": text(1), "meta": {"pile_set_name": name, "kind": kind}} for kind in ("a", "b", "a", "b")]
        jsonl(tmp_path / "sets" / f"{name}.jsonl", records)
    (tmp_path / "sets" / "README.md").write_text(text(2))
    (tmp_path / "sets" / "state.json").write_text(json.dumps({"digest": "0123456789abcdef" * 8}) + "\n")
    found = load_config(str(tmp_path / "sets"), store=str(tmp_path / "store"))
    (source,) = found.sources
    assert source.domain == "meta.pile_set_name"
    assert source.only == ["*.jsonl"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_what_a_web_server_lists_is_looked_at_as_on_disk(
    tmp_path: Path, form: Callable[[Path], dict[str, int]]
) -> None:
    place = tmp_path / "corpus"
    form(place)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        there = load_config(f"{url}/corpus", store=str(tmp_path / "store"))
        here = load_config(str(place), store=str(tmp_path / "store"))
        listed = [file.file.uri.removeprefix(url) for file in list_sources(there.sources)]
        server.shutdown()
    assert [source.domain for source in there.sources] == [source.domain for source in here.sources]
    local = [file.file.uri.removeprefix(str(tmp_path)) for file in list_sources(here.sources)]
    assert sorted(listed) == sorted(local)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Lists folders, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_code_of_others_in_a_source_tree_is_left_out_and_told(tmp_path: Path, ladm: Cli) -> None:
    """Packages, vendored code, environments and build folders by their marks, minified files, hidden names."""
    place = tmp_path / "project"
    source_tree(place)
    own = ("cmd/main.go", "web/src/app.ts", "env/settings.py")
    others = ("web/node_modules/left/index.js", "web/node_modules/left/README.md", "vendor/x/x.go", "third_party/z.c")
    made = ("tools/env/lib/site.py", "target/debug/made.rs", "web/app.min.js")
    for number, name in enumerate((*own, *others, *made)):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text(20 + number))
    (place / "web/node_modules/left/package.json").write_text(json.dumps({"description": text(3)}))
    (place / "tools/env/pyvenv.cfg").write_text("home = /usr\n")
    (place / "target/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    answer = ladm("init", place, "--out", tmp_path / "config.yaml")
    assert answer.code == 0, answer.err
    for line in (
        "3 files, not the tree's own: node_modules",
        "1 file, not the tree's own: vendor",
        "1 file, not the tree's own: third_party",
        "2 files, not the tree's own: tools/env/*",
        "2 files, not the tree's own: target/*",
        "1 file, not the tree's own: *.min.js",
        "names that begin with . or _: .git, .venv",
    ):
        assert f"left out: {line}" in answer.out
    expected = {"C": 2, "Python": 3, "Markdown": 2, "Go": 1, "TypeScript": 1}
    assert domains(str(place), tmp_path) == expected
    assert domains(f"{place}/**/[a-zR]*", tmp_path) == {**expected, "Python": 5}  # this pattern asks for hidden folders
    # What is looked at for its own sake is read.
    assert domains(f"{place}/web/node_modules", tmp_path) == {"JavaScript": 1, "Markdown": 1}


def test_a_folder_of_others_is_left_out_of_an_entry_further_down(tmp_path: Path) -> None:
    """An entry of its own for a folder below has paths below that folder."""
    place = tmp_path / "project"
    names = ("web/a.py", "web/b.R", "web/made/c.py", "web/made/CACHEDIR.TAG", "books/d.txt", "books/made/e.txt")
    for number, name in enumerate(names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text(number))
    assert domains(str(place), tmp_path) == {"Python": 1, "R": 1, "Text": 2}


def test_notes_and_scripts_beside_data_are_no_data(tmp_path: Path) -> None:
    """A data set of the Hub with its card and the script that loads it; books with a note above their folders."""
    fineweb(tmp_path / "set")
    (tmp_path / "set" / "README.md").write_text("# A card\n")
    (tmp_path / "set" / "set.py").write_text("import datasets\n")
    assert domains(str(tmp_path / "set"), tmp_path) == {"en": 6, "de": 3}
    for number, name in enumerate(("books/old/a.txt", "books/new/b.txt", "books/README.txt")):
        (tmp_path / "shelf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shelf" / name).write_text(text(number))
    assert domains(str(tmp_path / "shelf"), tmp_path) == {"old": 1, "new": 1}
