"""Large files are read in parts, and come to the same: documents, ids, lines, quarantine and accounts."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import Answer, sentence

from ladm.flows.config import load_config
from ladm.flows.dag.preflight import preflight
from ladm.flows.forecast.by_hand import done_by_hand
from ladm.flows.runs.record import quarantines_of
from ladm.tasks.reading import parts
from ladm.tasks.stage import StoreRecords
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
SMALL = ("ingest.part_bytes=6000", "ingest.shard_bytes=6000")
WHOLE = ("ingest.part_bytes=0", "ingest.shard_bytes=6000")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PATIENCE_SECONDS", 0.5)


def rows_of(seed: int = 1, number: int = 60) -> list[bytes]:
    words = random.Random(seed)
    return [
        json.dumps(
            {"text": sentence(words, words.choice([5, 60, 200])), "n": place, "meta": {"pile_set_name": "A"}}
        ).encode()
        for place in range(number)
    ]


def pieces_of(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


def zstd(content: bytes, size: int = 3000) -> bytes:
    return b"".join(zstandard.ZstdCompressor(level=1).compress(piece) for piece in pieces_of(content, size))


def bgzip(content: bytes, size: int = 3000) -> bytes:
    blocks = []
    for piece in [*pieces_of(content, size), b""]:
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        packed = packer.compress(piece) + packer.flush()
        head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(packed) + 25)
        blocks.append(head + packed + struct.pack("<II", zlib.crc32(piece), len(piece)))
    return b"".join(blocks)


def write(folder: Path, name: str, content: bytes) -> Path:
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for path in corpus.iterdir():
        path.unlink()
    (corpus / name).write_bytes(content)
    return corpus / name


class Read:
    """What a folder gives, read without Prefect."""

    def __init__(self, folder: Path, store: Path, *settings: str) -> None:
        """Read it with some settings; those of its source begin with `sources`."""
        entry = {"uri": f"{folder}/*"} | {
            name.removeprefix("sources."): value
            for name, _, value in (one.partition("=") for one in settings if one.startswith("sources"))
        }
        asked = [f"sources={json.dumps([entry])}", *(one for one in settings if not one.startswith("sources"))]
        self.record = done_by_hand(preflight(load_config(None, asked, str(store)), "ingest"))
        for done in self.record.done:  # as Prefect would
            StoreRecords(uri=str(store)).write_manifest(done.manifest)
        self.jobs = self.record.of("ingest")
        account = self.record.stage_summary("ingest")
        self.account = {name: number for name, number in account.items() if name not in ("run", "cached", "seconds")}
        self.record.check_accounts()
        read = Store(str(store)).read_shard
        self.documents = [row for shard in self.record.shards("ingest") for row in read(shard).to_pylist()]
        self.quarantine = [row for shard in quarantines_of(self.jobs) for row in read(shard).to_pylist()]


def same(folder: Path, *more: str, settings: tuple[str, ...] = SMALL) -> tuple[Read, Read]:
    """A folder read in parts, and as a whole: the same."""
    corpus = folder / "corpus"
    cut, whole = Read(corpus, folder / "cut", *settings, *more), Read(corpus, folder / "whole", *WHOLE, *more)
    assert len(whole.jobs) == 1
    assert cut.documents == whole.documents
    assert cut.quarantine == whole.quarantine
    assert cut.account == whole.account
    return cut, whole


FORMS: dict[str, Callable[[bytes], tuple[str, bytes]]] = {
    "plain": lambda content: ("x.jsonl", content),
    "zstd": lambda content: ("x.jsonl.zst", zstd(content)),
    "bgzip": lambda content: ("x.jsonl.gz", bgzip(content)),
    "bz2": lambda content: ("x.jsonl.bz2", b"".join(map(bz2.compress, pieces_of(content, 3000)))),
    "xz": lambda content: ("x.jsonl.xz", b"".join(map(lzma.compress, pieces_of(content, 3000)))),
}


def contents() -> Iterator[tuple[str, bytes]]:
    rows = rows_of()
    plain = b"\n".join(rows) + b"\n"
    yield "lines", plain
    yield "crlf", b"\r\n".join(rows) + b"\r\n"
    yield "no newline at the end", plain.rstrip()
    yield "byte order mark", b"\xef\xbb\xbf" + plain
    bad = [*rows[:20], b"not JSON", *rows[20:35], b'{"text": 5}', b"\xff\xfe", *rows[35:], b"{"]
    yield "bad lines", b"\n".join(bad) + b"\n"
    yield "empty lines", b"\n\n\n".join([b"", b"  ", *rows[:20], b"", *rows[20:], b"", b""])
    long = json.dumps({"text": sentence(random.Random(2), 6000), "meta": {"pile_set_name": "B"}}).encode()
    yield "longer than parts", b"\n".join([*rows[:9], long, *rows[9:30], long])
    yield "one line", long * 1
    yield "too long", b"\n".join([*rows[:9], long, *rows[9:30], long, *rows[30:]])
    yield "nothing but white space before", b" \n" * 10_000 + plain
    yield "an array behind white space", b" \n" * 10_000 + b"[\n" + b",\n".join(rows) + b"\n]"


CONTENTS = dict(contents())


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("form", ["plain", "zstd"])
def test_parts_come_to_the_same(tmp_path: Path, form: str, content: str) -> None:
    name, stored = FORMS[form](CONTENTS[content])
    write(tmp_path, name, stored)
    more = ("sources.max_record_bytes=20000",) if content == "too long" else ()
    settings = ("ingest.part_bytes=1000", "ingest.shard_bytes=4000") if form == "zstd" else SMALL
    cut, _ = same(tmp_path, *more, settings=settings)
    if content != "an array behind white space" and (form, content) != ("zstd", "one line"):
        assert len(cut.jobs) > 2


@pytest.mark.parametrize("form", ["bgzip", "bz2", "xz"])
def test_other_compressions_come_to_the_same(tmp_path: Path, form: str) -> None:
    write(tmp_path, *FORMS[form](CONTENTS["bad lines"]))
    cut, _ = same(tmp_path, settings=("ingest.part_bytes=1000", "ingest.shard_bytes=4000"))
    assert len(cut.jobs) > 2


FINE = ("ingest.part_bytes=1000", "ingest.shard_bytes=4000")


def parquet(path: Path, texts: list[object], group: int = 7) -> None:
    table = pa.table({"text": pa.array(texts), "n": list(range(len(texts)))})
    pq.write_table(table, path, row_group_size=group, write_page_checksum=True)


def test_row_groups_come_to_the_same(tmp_path: Path) -> None:
    rows = [json.loads(row)["text"] for row in rows_of()]
    rows[30] = None
    parquet(write(tmp_path, "x.parquet", b""), rows)
    cut, whole = same(tmp_path, settings=FINE)
    assert len(cut.jobs) > 3
    assert [entry["line"] for entry in whole.quarantine] == [31]


def test_a_damaged_row_group_quarantines_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "x.parquet", b"")
    parquet(path, [json.loads(row)["text"] for row in rows_of()])
    column = pq.ParquetFile(path).metadata.row_group(5).column(0)
    content = bytearray(path.read_bytes())
    texts = column.dictionary_page_offset + 400
    content[texts : texts + 40] = bytes(40)
    path.write_bytes(content)
    cut, whole = same(tmp_path, settings=FINE)
    assert [job.manifest.label for job in cut.jobs] == ["x.parquet"]
    assert (whole.account["files_quarantined"], whole.account["kept"]) == (1, 0)
    assert "row group 6 of" in whole.quarantine[0]["reason"]
    # what the parts had read is not looked for again
    again = Read(path.parent, tmp_path / "cut", *FINE)
    assert [job.cached for job in again.jobs] == [True]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a frame in the middle": lambda stored: stored[: len(stored) // 2] + b"\xaa" * 40 + stored[len(stored) // 2 + 40 :],
    "cut off": lambda stored: stored[:-20],
    "bytes at the end": lambda stored: stored + b"more",
    "something between frames": lambda stored: stored + b"no frame" * 500 + stored,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("form", ["zstd", "bgzip"])
def test_damage_quarantines_the_file(tmp_path: Path, form: str, damage: str) -> None:
    name, stored = FORMS[form](CONTENTS["lines"])
    write(tmp_path, name, DAMAGE[damage](stored))
    cut, whole = same(tmp_path, settings=FINE)
    assert len(cut.jobs) == 1
    assert (whole.account["files_quarantined"], whole.account["kept"]) == (1, 0)


def test_what_looks_like_a_frame_is_none(tmp_path: Path) -> None:
    """A skippable frame that holds a whole zstd file: a cut inside it is found out, and all is read as a whole."""
    inside = zstd(CONTENTS["crlf"])
    skippable = struct.pack("<II", 0x184D2A50, len(inside)) + inside
    write(
        tmp_path,
        "x.jsonl.zst",
        zstd(CONTENTS["lines"]) + skippable + zstd(b"".join(rows_of(3))[:0] + CONTENTS["bad lines"]),
    )
    cut, whole = same(tmp_path, settings=FINE)
    assert len(cut.jobs) == 1
    assert whole.account["kept"] > 100


@pytest.mark.parametrize("form", ["zstd", "gzip", "arrow", "text"])
def test_what_can_only_be_read_from_its_beginning_is_one_job(tmp_path: Path, form: str) -> None:
    content = CONTENTS["lines"]
    match form:
        case "zstd":
            write(tmp_path, "x.jsonl.zst", zstandard.ZstdCompressor().compress(content))
        case "gzip":
            write(tmp_path, "x.jsonl.gz", gzip.compress(content[:30_000]) + gzip.compress(content[30_000:]))
        case "arrow":
            table = pa.table({"text": [json.loads(row)["text"] for row in rows_of()]})
            with pa.ipc.new_file(write(tmp_path, "x.arrow", b""), table.schema) as writer:
                writer.write_table(table)
        case _:
            write(tmp_path, "x.txt", content)
    cut, _ = same(tmp_path, settings=FINE)
    assert len(cut.jobs) == 1


def test_a_part_counts_what_no_other_has_counted(tmp_path: Path) -> None:
    """Parts are done in any order, the notes of some are lost: the same documents."""
    path = write(tmp_path, *FORMS["zstd"](CONTENTS["bad lines"]))
    cut, _ = same(tmp_path, settings=FINE)
    store = tmp_path / "cut"
    notes = sorted(
        note for note in (store / "records").glob("*/*/*.json") if not note.name.startswith("shard-")
    )  # of shards there are notes till a record is written, which nobody does here
    assert len(notes) == len(cut.jobs)
    for note in notes[1::2]:
        note.unlink()
    notes[0].write_text("not JSON")
    lost = [done for done in cut.jobs[1:] if done.manifest.shards][1::2]
    for done in lost:
        (store / done.manifest.shards[0].path).unlink()
    again = Read(path.parent, store, *FINE)
    done_again = {done.manifest.label for done in again.jobs if not done.cached}
    assert len(lost) > 2
    assert done_again >= {done.manifest.label for done in lost}
    assert (again.documents, again.quarantine) == (cut.documents, cut.quarantine)


def test_what_was_read_as_a_whole_is_not_read_again(tmp_path: Path) -> None:
    """A store from before there were parts keeps what it has; a file that has grown is read in parts."""
    path = write(tmp_path, *FORMS["zstd"](CONTENTS["lines"]))
    before = Read(path.parent, tmp_path / "store", *WHOLE)
    config = ("ingest.part_bytes=1000", "ingest.shard_bytes=6000")
    after = Read(path.parent, tmp_path / "store", *config)
    assert [(done.cached, done.manifest.key) for done in after.jobs] == [(True, before.jobs[0].manifest.key)]
    path.write_bytes(path.read_bytes() + zstd(b"\n".join(rows_of(2)) + b"\n"))
    grown = Read(path.parent, tmp_path / "store", *config)
    assert len(grown.jobs) > 3
    # and grown once more: the parts before keep their shards
    path.write_bytes(path.read_bytes() + zstd(b"\n".join(rows_of(3)) + b"\n"))
    more = Read(path.parent, tmp_path / "store", *config)
    assert more.documents[: len(grown.documents)] == grown.documents
    kept = {shard.path for shard in grown.record.shards("ingest")} - {
        shard.path for shard in more.record.shards("ingest")
    }
    assert len(kept) <= 1


def test_files_whose_content_is_hashed_are_read_by_one_job(tmp_path: Path) -> None:
    write(tmp_path, *FORMS["zstd"](CONTENTS["lines"]))
    cut, _ = same(tmp_path, "ingest.identity=content", settings=FINE)
    assert len(cut.jobs) == 1
