"""From a row of an export back to the bytes of its source, the run and the configuration, for each kind of source."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from conftest import Answer, Corpus, run_arguments
from tokenizers import Tokenizer

from ladm.flows.runs.read import read_record, run_ids
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
OPENED = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".zst": lambda data: zstandard.ZstdDecompressor().decompress(
    data, max_output_size=2**24
)}  # fmt: skip


def text_at(source: str, offset: int, line: int) -> str:
    """What stands at a place of a source file, read by hand."""
    file = Path(source)
    if file.suffix == ".parquet":
        assert line == offset + 1
        text: str = pq.read_table(file)["text"][offset].as_py()
        return text
    content = OPENED.get(file.suffix, bytes)(file.read_bytes())
    if file.suffix == ".txt":
        assert (offset, line) == (0, 1)
        return content.decode()
    assert content[:offset].count(b"\n") == line - 1
    record: dict[str, str] = orjson.loads(content[offset:].split(b"\n", 1)[0])
    return record["text"]


def spread(corpus: Corpus) -> None:
    """The tiny corpus in five kinds of files, each with a bad record or an empty line where it can have one."""
    letters, poems = ((corpus.folder / f"{name}.jsonl").read_text().splitlines() for name in ("letters", "poems"))
    bad = ["", "{no json", *letters[2:4], ""]
    accented = {"text": json.loads(letters[1])["text"].replace("e", "é"), "meta": {"pile_set_name": "Letters"}}
    lines = [letters[0], json.dumps(accented, ensure_ascii=False), *bad, letters[3].lower()]
    (corpus.folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    packed = "\r\n".join(["", poems[0], "[]", poems[1]]).encode()
    (corpus.folder / "b.jsonl.zst").write_bytes(zstandard.ZstdCompressor(write_content_size=True).compress(packed))
    (corpus.folder / "c.jsonl.gz").write_bytes(gzip.compress("\n".join(["", letters[3], poems[2]]).encode()))
    texts = [json.loads(line)["text"] for line in poems]
    pq.write_table(
        pa.table({"text": [None, texts[0][::-1], texts[1][::-1]], "meta": [{"pile_set_name": "Poems"}] * 3}),
        corpus.folder / "d.parquet",
    )
    (corpus.folder / "e.txt").write_text(texts[2][::-1])
    for name in ("letters", "poems"):
        (corpus.folder / f"{name}.jsonl").unlink()


def test_every_row_leads_to_its_bytes_its_run_and_its_configuration(
    tmp_path: Path, corpus: Corpus, tiny_model: Path, ladm: Cli
) -> None:
    spread(corpus)
    store = tmp_path / "store"
    sources = [
        {"uri": f"{corpus.folder}/[a-d].*", "domain": "meta.pile_set_name"},
        {"uri": f"{corpus.folder}/e.txt", "domain": {"const": "Texts"}},
    ]
    settings = [
        *(f"sources={json.dumps(sources)}", "select.budget_tokens=null"),
        "export=[{format: parquet, shuffle: 1}, {format: npy, eos: 0, shuffle: 1}]",
    ]
    answer = ladm(*run_arguments(corpus, store, *settings))
    assert answer.code == 0, answer.err
    run_id = answer.record["run_id"]
    folder = store / "runs" / run_id / "export"
    (texts,) = (folder / "parquet").glob("*.parquet")
    rows = pq.read_table(texts).to_pylist()
    assert {Path(row["source"]).suffix for row in rows} == {".jsonl", ".zst", ".gz", ".parquet", ".txt"}

    # to the bytes of the source
    for row in rows:
        text = text_at(row["source"], row["offset"], row["line"])
        assert text == row["text"]
        assert hashlib.sha256(text.encode()).hexdigest() == row["sha256"]
        assert len(text.encode()) == row["bytes"]

    # to the run and the configuration, by nothing but what stands in the row
    made_by: dict[str, dict[str, Any]] = {}
    for name in run_ids(Store(str(store))):
        record = read_record(Store(str(store)), name)
        made_by |= {job["key"]: record for job in record["shards"] if job["stage"] == "export"}
    (record,) = {record["run_id"]: record for record in (made_by[row["export_key"]] for row in rows)}.values()
    assert record["run_id"] == run_id
    canonical = orjson.dumps(record["config"], option=orjson.OPT_SORT_KEYS)
    assert hashlib.sha256(canonical).hexdigest() == record["config_sha256"]
    assert record["config"]["sources"][0]["uri"] == sources[0]["uri"]
    listed = {source["uri"]: source for source in record["sources"]}
    for row in rows:
        status = Path(row["source"]).stat()
        of_source = listed[row["source"]]
        assert (of_source["size"], of_source["version"]) == (status.st_size, str(status.st_mtime_ns))

    # a run of tokens, by its sidecar
    (flat,) = (folder / "npy").glob("*.npy")
    (sidecar,) = (folder / "npy").glob("*.pieces.parquet")
    tokens = np.fromfile(flat, np.uint16)
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    pieces = pq.read_table(sidecar).to_pylist()
    assert [piece["doc_id"] for piece in pieces] == [row["doc_id"] for row in rows]
    begin = 0
    for piece in pieces:
        ids = tokens[begin : begin + piece["tokens"]].tolist()
        begin += piece["tokens"]
        assert ids.pop() == 0
        assert tokenizer.decode(ids) == text_at(piece["source"], piece["offset"], piece["line"])
        assert made_by[piece["export_key"]]["run_id"] == run_id
    assert begin == len(tokens)
