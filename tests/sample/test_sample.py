"""The bundled sample: what `ladm run` needs of it, and that no text comes without its licence and notice."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard

import ladm.flows.sample

FOLDER = Path(ladm.flows.sample.__file__).parent
FILES = sorted(FOLDER.glob("*.jsonl.zst"))
DOMAINS = ["Books", "Code", "Legal", "Manuals", "QA", "Reference"]
LICENSES = {
    "Apache-2.0",
    "BSD-3-Clause",
    "MIT",
    "PSF-2.0",
    "SCOWL",
    "Unicode-DFS-2016",
    "public-domain",
}
LONG_BYTES = 8192  # a long document has at least 2,048 tokens of the default model, a short one under 1,024


def read(path: Path) -> list[dict[str, Any]]:
    """The records of one file, read as a stream the way ingest does."""
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        return [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n")]


@pytest.fixture(scope="module")
def sample() -> dict[str, list[dict[str, Any]]]:
    return {path.name.removesuffix(".jsonl.zst"): read(path) for path in FILES}


@pytest.fixture(scope="module")
def sources() -> str:
    return (FOLDER / "SOURCES.md").read_text(encoding="utf-8")


def size(record: dict[str, Any]) -> int:
    return len(record["text"].encode())


def test_files_are_the_six_domains_and_small() -> None:
    assert [path.name for path in FILES] == [f"{domain}.jsonl.zst" for domain in DOMAINS]
    assert sum(path.stat().st_size for path in FILES) <= 4_000_000


def test_counts_by_length_and_kind(sample: dict[str, list[dict[str, Any]]]) -> None:
    long_kinds = {d: Counter(r["meta"]["kind"] for r in rs if size(r) >= LONG_BYTES) for d, rs in sample.items()}
    assert long_kinds == {
        "Books": {"whole": 5, "list": 1, "spliced": 2},
        "Code": {"whole": 5, "list": 1, "spliced": 2},
        "Legal": {"whole": 5, "list": 1, "spliced": 2},
        "Manuals": {"whole": 5, "list": 1, "spliced": 2},
        "QA": {"whole": 4, "list": 2, "spliced": 1},
        "Reference": {"whole": 4, "list": 3, "spliced": 1},
    }
    short = {d: sum(size(r) < LONG_BYTES for r in rs) for d, rs in sample.items()}
    assert short == {"Books": 4, "Code": 4, "Legal": 5, "Manuals": 4, "QA": 4, "Reference": 4}


def test_short_documents_are_far_from_long_ones(sample: dict[str, list[dict[str, Any]]]) -> None:
    sizes = [size(record) for records in sample.values() for record in records]
    assert not [n for n in sizes if 2500 < n < LONG_BYTES]
    # Every domain has something for the length filter to drop: fewer bytes than a window has tokens.
    assert all(any(size(record) < 1024 for record in records) for records in sample.values())


def test_every_record_has_text_domain_source_and_an_allowed_licence(
    sample: dict[str, list[dict[str, Any]]],
) -> None:
    for domain, records in sample.items():
        for record in records:
            assert set(record) == {"text", "meta"}
            meta = record["meta"]
            assert set(meta) - {"pieces"} == {"pile_set_name", "source", "license", "kind", "title"}
            assert meta["pile_set_name"] == domain
            assert record["text"].strip()
            assert meta["source"].strip()
            assert set(meta["license"].split(" AND ")) <= LICENSES


def test_texts_and_titles_are_unique(sample: dict[str, list[dict[str, Any]]]) -> None:
    records = [record for group in sample.values() for record in group]
    assert len({record["text"] for record in records}) == len(records) == 72
    assert len({record["meta"]["title"] for record in records}) == len(records)


def test_a_splice_names_the_source_of_every_piece(sample: dict[str, list[dict[str, Any]]]) -> None:
    for meta in (record["meta"] for records in sample.values() for record in records):
        assert ("pieces" in meta) == (meta["kind"] == "spliced")
        if meta["kind"] == "spliced":
            pieces = meta["pieces"]
            assert len(pieces) >= 12
            # Consecutive passages come from different documents.
            assert all(a != b for a, b in itertools.pairwise(pieces))


def test_a_splice_shares_no_passage_with_a_document_of_the_sample(
    sample: dict[str, list[dict[str, Any]]],
) -> None:
    for records in sample.values():
        others = [record["text"] for record in records if record["meta"]["kind"] != "spliced"]
        for record in records:
            if record["meta"]["kind"] == "spliced":
                blocks = [block for block in record["text"].split("\n\n") if len(block) >= 200]
                assert len(blocks) >= 10
                assert not [block for block in blocks for text in others if block in text]


def test_sources_lists_every_document_and_piece_and_has_every_notice(
    sample: dict[str, list[dict[str, Any]]], sources: str
) -> None:
    for records in sample.values():
        for meta in (record["meta"] for record in records):
            assert f"| {meta['title']} | {meta['kind']} | {meta['license']} |" in sources
            for source in meta.get("pieces", [meta["source"]]):
                assert f"`{source}`" in sources
    headings = set(re.findall(r"^## (.+)$", sources, re.MULTILINE))
    assert headings == {*DOMAINS, *LICENSES}


@pytest.mark.parametrize(
    "notice",
    [
        "THE SOFTWARE IS PROVIDED",  # MIT
        "Neither the name of chatterbot nor the names of its contributors",  # BSD-3-Clause
        "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2",
        "CNRI LICENSE AGREEMENT FOR PYTHON 1.6.1",
        "UNICODE, INC. LICENSE AGREEMENT - DATA FILES AND SOFTWARE",
        "The collective work is Copyright 2000-2011 by Kevin Atkinson",
        "Copyright 1993, Geoff Kuenning, Granada Hills, CA",
    ],
)
def test_the_notices_are_given_in_full(sources: str, notice: str) -> None:
    assert notice in sources
