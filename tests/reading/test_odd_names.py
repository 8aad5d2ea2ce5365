"""Files whose names are no UTF-8, hold `::`, escapes or line breaks are read, and are shown harmlessly."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ladm.flows.config import RunConfig
from ladm.tasks.errors import SourceError
from ladm.tasks.job import Job
from ladm.tasks.reading.readers import SourceConfig
from ladm.tasks.reading.sources import check_unchanged, list_sources
from ladm.tasks.stages.ingest import IngestConfig, ingest, ingest_key_config
from ladm.tasks.storage.file_systems import file_system
from ladm.tasks.storage.store import Store

NAMES = [
    b"caf\xe9.jsonl",
    b"caf%E9.jsonl",
    "café.jsonl".encode(),
    b"wiki::en.jsonl",
    b"zip::a.jsonl",
    b"s3:::b.jsonl",
    b"es\x1b[31mc.jsonl",
    b"two\nlines.jsonl",
    b"[a]*?.jsonl",
    b"~.jsonl",
    b"\xff\xfe::\x9b.jsonl",
]


def written(folder: Path) -> Path:
    for number, name in enumerate(NAMES):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:  # noqa: PTH118, PTH123  # bytes are no Path
            file.write(b'{"text": "text %d"}\n' % number)
    return folder


@pytest.mark.parametrize("below", ["", "/*", "/**/*.jsonl", "/[!_]*l"])
@pytest.mark.parametrize("identity", ["stat", "content"])
def test_every_name_is_read(tmp_path: Path, below: str, identity: str) -> None:
    folder = tmp_path / "da::ta"
    folder.mkdir()
    listed = list_sources([SourceConfig(uri=f"{written(folder)}{below}")], identity)
    assert len(listed) == len(NAMES)
    store = Store(str(tmp_path / "store"))
    texts = []
    for entry in listed:
        entry.file.uri.encode()
        assert entry.file.problem is None
        check_unchanged(entry.file)
        config = ingest_key_config(entry.config, IngestConfig())
        job = Job(stage="ingest", label="x", store=store.uri, config=config, source=entry.file)
        outcome = ingest(job, store, "key")
        assert outcome.counts.kept == 1, outcome.quarantine
        texts += [row["text"] for row in pq.read_table(store.url(outcome.shards[0].path)).to_pylist()]
    assert sorted(texts) == sorted(f"text {number}" for number in range(len(NAMES)))
    uris = {entry.file.uri for entry in listed}
    assert f"file://localhost{str(folder).replace('::', '%3A%3A')}/caf%E9.jsonl" in uris
    assert f"{folder}/caf%E9.jsonl" in uris


@pytest.mark.parametrize("name", [name for name in NAMES if name.isascii()])
def test_every_name_is_read_by_itself(tmp_path: Path, name: bytes) -> None:
    (listed,) = list_sources([SourceConfig(uri=f"{written(tmp_path)}/{name.decode()}")])
    assert listed.file.uri == f"{tmp_path}/{name.decode()}"
    check_unchanged(listed.file)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://bucket/deep/wiki::en.jsonl", "bucket/deep/wiki::en.jsonl"),
        ("https://host/wiki::en.jsonl", "https://host/wiki::en.jsonl"),
        ("wiki::en.jsonl", f"{Path.cwd()}/wiki::en.jsonl"),
        ("file:///x/wiki::en.jsonl", "/x/wiki::en.jsonl"),
    ],
)
def test_an_object_of_such_a_name_is_one_object(uri: str, path: str) -> None:
    assert file_system(uri)[1] == path


@pytest.mark.parametrize(
    "uri",
    [
        "tar://a.jsonl::t.tar",
        "zip://*.jsonl::b.zip",
        "simplecache::s3://b/c",
        "zip::memory://a.zip",
        "dir://x::memory://y",
    ],
)
def test_chained_addresses_are_refused(uri: str) -> None:
    with pytest.raises(SourceError, match=r"sources\[0\].uri: .* chained by :: are not read"):
        list_sources([SourceConfig(uri=uri)])


def test_an_address_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(ValidationError, match="unicode"):
        SourceConfig(uri="caf\udce9.jsonl")
    with pytest.raises(ValidationError, match="the address is not UTF-8"):
        RunConfig.model_validate({"sources": "a.jsonl", "store": "caf\udce9"})


def test_a_changed_file_is_named_harmlessly(tmp_path: Path) -> None:
    path = tmp_path / "a\n\x1b[31m.jsonl"
    path.write_text("{}")
    (listed,) = list_sources([SourceConfig(uri=str(tmp_path))])
    path.write_text("{}{}")
    with pytest.raises(SourceError) as refused:
        check_unchanged(listed.file)
    assert str(refused.value).isprintable()
