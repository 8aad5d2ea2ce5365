"""Decompression and line splitting: what is read, what is refused, and that nothing is lost in between."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ladm.tasks.reading.records import UnreadableFile
from ladm.tasks.reading.streams import HEAD_BYTES, blocks_of, compression_of, lines_of

FIRST = b"".join(b'{"text": "%d"}\n' % (number * 7919) for number in range(120))
SECOND = b"".join(b'{"text": "%d"}\n' % (number * 104729) for number in range(80))
SKIPPABLE = struct.pack("<II", 0x184D2A53, 5) + b"hello"


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
SUFFIX = {"zstd": ".zst", "gzip": ".gz", "bz2": ".bz2", "xz": ".xz"}
codecs = pytest.mark.parametrize("codec", list(COMPRESS))


def read(content: bytes, name: str = "a.jsonl") -> bytes:
    return b"".join(blocks_of(io.BytesIO(content), name))


@codecs
def test_one_and_many_frames_are_read_whatever_the_name(codec: str) -> None:
    compress = COMPRESS[codec]
    assert read(compress(FIRST)) == FIRST
    assert read(compress(FIRST) + compress(SECOND), "a.jsonl.gz") == FIRST + SECOND
    assert read(compress(b"")) == b""


def test_plain_bytes_under_a_compressed_name_are_read_as_they_are() -> None:
    assert read(FIRST, "a.jsonl.zst") == FIRST
    assert read(b"BZh9 is how some text begins\n", "a.jsonl") == b"BZh9 is how some text begins\n"


def test_skippable_zstd_frames_are_skipped_wherever_they_are() -> None:
    whole = SKIPPABLE + zstd(FIRST) + SKIPPABLE + zstd(SECOND) + SKIPPABLE
    assert read(whole) == FIRST + SECOND


@codecs
def test_a_stream_cut_anywhere_but_between_frames_is_refused(codec: str) -> None:
    frames = [COMPRESS[codec](FIRST), COMPRESS[codec](SECOND)]
    whole = b"".join(frames)
    name = "a.jsonl" + SUFFIX[codec]
    for length in range(1, len(whole)):
        if length == len(frames[0]):
            assert read(whole[:length], name) == FIRST
            continue
        with pytest.raises(UnreadableFile) as refused:
            read(whole[:length], name)
        if length > 12:  # a shorter piece may not show its kind
            assert "truncated" in refused.value.reason, length


@codecs
def test_no_bytes_at_all_are_refused_where_the_name_claims_compression(codec: str) -> None:
    with pytest.raises(UnreadableFile, match=f"empty: not a valid {codec} file"):
        read(b"", "a.jsonl" + SUFFIX[codec].upper())
    assert read(b"", "a.jsonl") == b""


@codecs
def test_bytes_after_the_stream_are_refused(codec: str) -> None:
    with pytest.raises(UnreadableFile, match=f"trailing bytes after the {codec} stream"):
        read(COMPRESS[codec](FIRST) + b"\njunk, and enough of it to be no header")


@codecs
def test_a_flipped_bit_anywhere_is_refused(codec: str) -> None:
    whole = COMPRESS[codec](FIRST)
    for position in range(12, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        try:
            content = read(bytes(damaged))
        except UnreadableFile:
            continue
        assert content == FIRST, position  # a bit that decoders do not look at


def test_xz_padding_between_streams_is_allowed() -> None:
    assert read(lzma.compress(FIRST) + b"\0" * 8 + lzma.compress(SECOND) + b"\0" * 4) == FIRST + SECOND


@codecs
def test_a_bomb_comes_in_bounded_blocks(codec: str) -> None:
    size = 20_000_000
    whole = COMPRESS[codec](bytes(size))
    assert len(whole) < size / 500
    lengths = [len(block) for block in blocks_of(io.BytesIO(whole), "a")]
    assert sum(lengths) == size
    assert max(lengths) <= 1 << 20


class FailingFile(io.BytesIO):
    """Storage whose read number `good + 1` fails; the others give at most 500 bytes."""

    error = ConnectionResetError(104, "the storage went away")

    def __init__(self, content: bytes, good: int) -> None:
        super().__init__(content)
        self.good = good

    def read(self, size: int | None = -1) -> bytes:
        self.good -= 1
        if self.good < 0:
            raise self.error
        return super().read(min(size or 0, 500))


@pytest.mark.parametrize("codec", [None, *COMPRESS])
def test_an_error_of_the_storage_passes_through_from_every_read(codec: str | None) -> None:
    whole = COMPRESS[codec](FIRST) if codec else FIRST
    for good in range(1, 100):
        raised = None
        try:
            assert b"".join(blocks_of(FailingFile(whole, good), "a")) == FIRST
        except ConnectionResetError as error:
            raised = error
        else:
            break
        assert raised is FailingFile.error
        assert raised.__cause__ is None  # a cycle of causes hangs those who print it
    assert 2 < good < 99


def test_a_closed_stream_leaves_the_file_open() -> None:
    file = io.BytesIO(zstd(FIRST))
    blocks = blocks_of(file, "a")
    next(blocks)
    del blocks
    assert not file.closed


def test_magic_bytes() -> None:
    for codec, compress in COMPRESS.items():
        assert compression_of(compress(b"x")[:16]) == codec
        assert compression_of(compress(b"")[:16]) == codec
    assert compression_of(SKIPPABLE[:10]) == "zstd"
    assert compression_of(b"") is None
    assert compression_of(b'{"text": "x"}') is None


def reference(content: bytes, limit: int, start: int) -> list[tuple[Any, ...]]:
    """Split all at once, as `lines_of` must split in pieces."""
    pieces = content.split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    found, offset = [], start
    for number, piece in enumerate(pieces, 1):
        whole = len(piece) <= limit
        found.append((number, offset, piece.removesuffix(b"\r") if whole else piece[:HEAD_BYTES], whole))
        offset += len(piece) + 1
    return found


@settings(max_examples=300, deadline=None)
@given(
    chunks=st.lists(
        st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b"\xff", b"\xe2\x80\xa8"])).map(b"".join)
    ),
    limit=st.integers(1, 12),
    start=st.sampled_from([0, 3]),
)
def test_lines_do_not_depend_on_the_blocks(chunks: list[bytes], limit: int, start: int) -> None:
    assert [tuple(line) for line in lines_of(chunks, limit, start)] == reference(b"".join(chunks), limit, start)


def test_of_a_line_too_long_only_the_beginning_is_kept() -> None:
    blocks = [b"ok\n" + b"a" * 10, b"b" * 2000, b"c" * 2000 + b"\nok\n", b"d" * 5000]
    found = [tuple(line) for line in lines_of(blocks, 3000)]
    assert found[0] == (1, 0, b"ok", True)
    assert found[1] == (2, 3, b"a" * 10 + b"b" * (HEAD_BYTES - 10), False)
    assert found[2] == (3, 3 + 4010 + 1, b"ok", True)
    assert found[3] == (4, 4017, b"d" * HEAD_BYTES, False)
    assert len(found) == 4
